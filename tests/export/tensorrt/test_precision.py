"""Which layer of an engine computes which node of the file, in what it was planned, and in what it runs."""

from pathlib import Path

import numpy as np
import onnx

from convkit.export.tensorrt import precision
from convkit.export.tensorrt.asserted import build_and_assert
from convkit.export.tensorrt.dump import EngineLayer, Tensor
from convkit.export.tensorrt.request import Settings
from tests.compress.network import Net

RTX = "tensorrt_rtx"


def weight_only(folder: Path) -> Path:
    """A convolution of floats with a weight in INT8, which it dequantizes."""
    net = Net("N", 4, 8, 8)
    proto = net.proto(net.conv("x", 4, 3, bias=False))
    proto.opset_import[0].version = 21
    codes = onnx.numpy_helper.from_array(np.full((4, 4, 3, 3), 3, np.int8), "codes")
    proto.graph.initializer.extend([codes, onnx.numpy_helper.from_array(np.float32(0.1), "scale")])
    proto.graph.node.insert(0, onnx.helper.make_node("DequantizeLinear", ["codes", "scale"], ["w"], "w"))
    proto.graph.node[1].input[1] = "w"
    onnx.save(proto, folder / "net.onnx")
    return folder / "net.onnx"


def test_a_weight_that_only_saves_storage_is_planned_in_float(tmp_path: Path) -> None:
    (found,) = build_and_assert(RTX, weight_only(tmp_path), Settings(sm=89)).findings
    assert (found.planned, found.ran) == ("fp32", "fp32")


def test_a_layer_that_runs_wider_is_told(tmp_path: Path) -> None:
    model = onnx.load(weight_only(tmp_path))
    (node,) = [node for node in model.graph.node if node.op_type == "Conv"]
    read, weight = Tensor("x", (1, 4, 8, 8), "fp32"), Tensor("w", (4, 4, 3, 3), "fp32")
    wide = EngineLayer("fused", "correlation", (read,), (weight,), (read,), (node.name,))
    low = EngineLayer("fused", "correlation", (Tensor("x", read.shape, "int8"),), (weight,), (read,), (node.name,))
    (held,) = precision.compare(model, [wide])
    assert held.holds
    (narrower,) = precision.compare(model, [low])
    assert not narrower.holds
    assert narrower.words == f"Conv {node.name!r} is planned in fp32 and runs in int8 (fused)"
    (lost,) = precision.compare(model, [])
    assert lost.words == f"Conv {node.name!r} is planned in fp32; the engine has no layer for it"


def test_layers_of_one_name_and_of_functions_are_each_asserted(tmp_path: Path) -> None:
    """An ONNX file may call several nodes alike, and have layers in the bodies of its functions."""
    net = Net(1, 3, 8, 8, seed=0)
    net.conv("x", 16, 3)  # which nothing hangs on
    second = net.conv(net.conv("x", 16, 3), 16, 3)
    proto = net.proto(net.op("Relu", net.op("Identity", net.conv(second, 16, 3)), name="y"))
    for node in proto.graph.node:
        node.name = "same" if node.op_type == "Conv" else ""
    inner = next(node for node in reversed(proto.graph.node) if node.op_type == "Conv")
    body = onnx.NodeProto()
    body.CopyFrom(inner)
    ins, outs = list(inner.input), list(inner.output)
    function = onnx.helper.make_function("mine", "Layer", ins, outs, [body], list(proto.opset_import))
    proto.functions.append(function)
    proto.opset_import.append(onnx.helper.make_opsetid("mine", 1))
    inner.CopyFrom(onnx.helper.make_node("Layer", ins, outs, "", domain="mine"))
    onnx.save(proto, tmp_path / "net.onnx")
    found = build_and_assert(RTX, tmp_path / "net.onnx", Settings(sm=89))
    convs = [one for one in found.findings if one.operator == "Conv"]
    assert len({one.node for one in convs}) == len(convs) == 3
    assert all(one.holds for one in convs)


def test_a_product_may_have_its_weight_on_the_left() -> None:
    weight = onnx.numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    ins = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [3, 5])]
    outs = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4, 5])]
    node = onnx.helper.make_node("MatMul", ["w", "x"], ["y"], "left")
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "net", ins, outs, [weight]))
    assert precision.planned(model) == {"left": ("MatMul", "fp32")}


def test_a_weight_in_a_node_has_its_numbers_too() -> None:
    """The layer that holds them is the one that computes the node; what only scales names it as well."""
    net = Net("N", 4, 8, 8)
    proto = net.proto(net.conv("x", 4, 3, bias=False))
    weight = proto.graph.initializer.pop()
    proto.graph.node.insert(0, onnx.helper.make_node("Constant", [], [weight.name], "weight", value=weight))
    (name,) = precision.planned(proto)
    read, low = Tensor("x", (1, 4, 8, 8), "fp32"), Tensor("q", (1, 4, 8, 8), "int8")
    scale = EngineLayer("scale", "scale", (low,), (Tensor("s", (), "fp32"),), (low,), (name,))
    whole = EngineLayer("whole", "conv", (read,), (Tensor("w", (4, 4, 3, 3), "fp32"),), (read,), (name,))
    (found,) = precision.compare(proto, [scale, whole])
    assert (found.layer, found.ran) == ("whole", "fp32")
