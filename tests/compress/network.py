"""Small ONNX networks for the tests of quantization, built a node a line, with seeded weights and inputs."""

import tempfile
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from convkit.compress import calibration, placement
from convkit.compress import graph as graphs
from convkit.compress.apply import apply_prepared, prepare
from convkit.compress.calibration import Calibration
from convkit.compress.method import Samples
from convkit.compress.model import Model, ModelRef, load
from convkit.compress.plan import Plan
from convkit.compress.target import Target
from convkit.export.onnx import to_onnx

SIZE = 8


class Net:
    """Nodes are named after the tensor they make: `conv1`, `Relu2`, …; the input is `x`."""

    def __init__(self, *shape: int | str, seed: int = 0) -> None:
        self.shape = shape or ("N", 3, SIZE, SIZE)
        self.random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._channels = {"x": int(self.shape[1])}

    def weight(self, values: np.ndarray) -> str:
        name = f"weight{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def normal(self, *shape: int, gain: float = 1.0) -> np.ndarray:
        return (self.random.standard_normal(shape) * gain).astype(np.float32)

    def op(self, operator: str, *inputs: str, name: str = "", **attributes: object) -> str:
        (result,) = self.split(operator, inputs, 1, name, **attributes)
        return result

    def split(
        self, operator: str, inputs: Sequence[str], count: int, name: str = "", **attributes: object
    ) -> list[str]:
        """An operator with `count` results."""
        name = name or f"{operator.lower()}{len(self._nodes)}"
        results = [name] if count == 1 else [f"{name}_{i}" for i in range(count)]
        self._nodes.append(helper.make_node(operator, inputs, results, name, **attributes))
        self._channels |= {result: self._channels.get(inputs[0], 0) // count for result in results}
        return results

    def conv(
        self, source: str, outputs: int, kernel: int = 1, *, group: int = 1, stride: int = 1, bias: bool = True,
        weight: np.ndarray | None = None, offset: np.ndarray | None = None, channels: int = 0,
    ) -> str:  # fmt: skip
        """A 2-D convolution that keeps the size (over its stride); `offset` is its bias."""
        channels = channels or self._channels[source]
        fan_in = channels // group * kernel**2
        values = self.normal(outputs, channels // group, kernel, kernel, gain=(2 / fan_in) ** 0.5)
        inputs = [source, self.weight(values if weight is None else weight)]
        if bias or offset is not None:
            inputs.append(self.weight(self.normal(outputs, gain=0.2) if offset is None else offset))
        geometry = {"pads": [kernel // 2] * 4, "strides": [stride] * 2, "kernel_shape": [kernel] * 2}
        name = self.op("Conv", *inputs, group=group, **geometry)
        self._channels[name] = outputs
        return name

    def norm(self, source: str) -> str:
        """A batch norm whose statistics are not 0 and 1."""
        channels = self._channels[source]
        values = [1 + self.normal(channels, gain=0.2), self.normal(channels, gain=0.2), self.normal(channels, gain=0.2)]
        variance = np.abs(self.normal(channels)) + np.float32(0.5)
        return self.op("BatchNormalization", source, *map(self.weight, [*values, variance]))

    def relu6(self, source: str) -> str:
        return self.op("Clip", source, self.weight(np.float32(0)), self.weight(np.float32(6)))

    def head(self, source: str, classes: int = 5, channels: int = 0) -> str:
        """Mean over the image, then a linear classifier `scores`."""
        channels = channels or self._channels[source]
        flat = self.op("Flatten", self.op("GlobalAveragePool", source))
        weight, bias = self.weight(self.normal(classes, channels, gain=0.5)), self.weight(self.normal(classes))
        return self.op("Gemm", flat, weight, bias, name="scores", transB=1)

    def proto(self, *outputs: str) -> onnx.ModelProto:
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)]
        infos = [onnx.ValueInfoProto(name=name) for name in outputs]
        graph = helper.make_graph(self._nodes, "net", inputs, infos, self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return onnx.shape_inference.infer_shapes(model)

    def save(self, path: Path, *outputs: str) -> str:
        path.write_bytes(self.proto(*outputs).SerializeToString())
        return str(path)

    def model(self, *outputs: str) -> Model:
        with tempfile.TemporaryDirectory() as folder:
            return load(ModelRef(self.save(Path(folder) / "net.onnx", *outputs)))


def batches(model: Model, count: int = 2, size: int = 4, seed: int = 0) -> list[Samples]:
    """Standard normal inputs; a fixed batch keeps its size."""
    generator = torch.Generator().manual_seed(seed)
    (spec,) = model.inputs
    first = spec.shape[0] if isinstance(spec.shape[0], int) else size
    return [{spec.name: torch.randn(first, *spec.sample[1:], generator=generator)} for _ in range(count)]


def residual(*shape: int | str, seed: int = 0) -> Net:
    """A residual ReLU6 net as MobileNetV2's: batch norms, expand, depthwise, project, add, pool, Gemm `scores`."""
    net = Net(*shape, seed=seed)
    stem = net.relu6(net.norm(net.conv("x", 8, 3, bias=False)))
    expanded = net.relu6(net.norm(net.conv(stem, 16, bias=False)))
    deep = net.relu6(net.norm(net.conv(expanded, 16, 3, group=16, bias=False)))
    project = net.norm(net.conv(deep, 8, bias=False))
    net.head(net.op("Add", stem, project, name="sum"))
    return net


EXACT = ("simplify", "fold_batch_norm")


def quantized(
    model: Model, target: Target, *, keep: Collection[str] = (), methods: tuple[str, ...] = EXACT
) -> tuple[Model, Plan]:
    """`model` quantized wherever `target` can, calibrated on normal inputs, and the plan that did it."""
    samples = batches(model)
    prepared = prepare(model, methods, samples)
    layers = placement.place(prepared.graph, target, keep)
    layers, ranges = calibration.calibrate(prepared, target, layers, Calibration(samples, samples))
    plan = Plan(model.digest, target.name, methods, layers, ranges)
    return apply_prepared(prepared, plan, target, samples), plan


def kinds(model: Model) -> list[str]:
    """Operators of the graph in order."""
    return [graphs.operator(node) for node in graphs.computes(model.graph)]


def fused(model: Model, folder: Path) -> Counter[str]:
    """The operators that ONNX Runtime really runs for the file that is written of `model`."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(folder / "fused.onnx"), 3
    written = to_onnx(model).SerializeToString()
    onnxruntime.InferenceSession(written, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "fused.onnx").graph.node)
