"""A small net with what engines treat differently: plain, depthwise and pointwise convs, a residual, pooling, Gemm."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE, CHANNELS, CLASSES = 16, 8, 10


def write(path: Path, *, batch: int | str = 1, size: int | str = SIZE, seed: int = 0) -> str:
    """The net as an ONNX file; input `x` [batch, 3, size, size], output `scores` [batch, 10]."""
    random = np.random.default_rng(seed)
    weights: list[onnx.TensorProto] = []

    def weight(name: str, *shape: int) -> str:
        values = random.standard_normal(shape).astype(np.float32) / np.float32(np.sqrt(np.prod(shape[1:]) + 1))
        weights.append(numpy_helper.from_array(values, name))
        return name

    def conv(name: str, origin: str, result: str, channels: int, kernel: int, group: int = 1) -> onnx.NodeProto:
        inputs = [
            origin,
            weight(f"{name}.weight", CHANNELS, channels // group, kernel, kernel),
            weight(f"{name}.bias", 8),
        ]
        pads = [kernel // 2] * 4
        return helper.make_node("Conv", inputs, [result], name=name, pads=pads, group=group, kernel_shape=[kernel] * 2)

    nodes = [
        conv("stem", "x", "stem_out", 3, 3),
        helper.make_node("Relu", ["stem_out"], ["stem_relu"], name="stem_relu"),
        conv("depthwise", "stem_relu", "depthwise_out", CHANNELS, 3, CHANNELS),
        conv("pointwise", "depthwise_out", "pointwise_out", CHANNELS, 1),
        helper.make_node("Add", ["stem_relu", "pointwise_out"], ["sum"], name="sum"),
        helper.make_node("GlobalAveragePool", ["sum"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["features"], name="flatten"),
        helper.make_node(
            "Gemm", ["features", weight("head.weight", CLASSES, CHANNELS), weight("head.bias", CLASSES)], ["scores"],
            name="head", transB=1,
        ),
    ]  # fmt: skip
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, size, size])]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, CLASSES])]
    graph = helper.make_graph(nodes, "small", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return str(path)


def sample(batch: int = 1, seed: int = 1) -> dict[str, np.ndarray]:
    """Standard normal input for the net."""
    return {"x": np.random.default_rng(seed).standard_normal((batch, 3, SIZE, SIZE)).astype(np.float32)}
