"""Where Q/DQ stands: what each kind of block gets on a target, by the target's own rules."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from convkit.compress import graph as graphs
from convkit.compress import parts, placement
from convkit.compress import target as targets
from convkit.compress.apply import prepare
from convkit.compress.model import Model, load
from convkit.compress.plan import LayerPlan
from convkit.export.onnx import to_onnx
from tests.compress.network import Net, batches, fused, kinds, quantized, residual
from tests.nets.small import ref as shipped

TARGET = targets.load("onnxruntime-cpu")
every_target = pytest.mark.parametrize("name", parts.names("recipes/targets", ".yaml"))


def ready(net: Net, *outputs: str) -> Model:
    model = net.model(*outputs)
    return prepare(model, ("simplify", "fold_batch_norm"), batches(model))


def placed(net: Net, *outputs: str, keep: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    """Layers in low precision, and tensors that get a pair."""
    model = ready(net, *outputs)
    layers = placement.place(model.graph, TARGET, keep)
    tensors = placement.quantized_tensors(model.graph, TARGET, layers)
    return list(layers), [graphs.value(node) for node in tensors]


def test_a_residual_block_is_whole() -> None:
    layers, tensors = placed(residual(), "scores")
    assert layers == ["conv0", "conv3", "conv6", "conv9", "sum", "globalaveragepool12", "flatten13", "scores"]
    # A batch norm folded and a Clip fused: the pair stands behind the Clip alone; the Gemm gives its scores in float.
    assert tensors == [
        "x",
        "clip2",
        "clip5",
        "clip8",
        "batchnormalization10",
        "sum",
        "globalaveragepool12",
        "flatten13",
    ]


def test_weights_and_formats_are_the_targets() -> None:
    model = ready(residual(), "scores")
    layers = placement.place(model.graph, replace(TARGET, activation="int8"))
    assert layers["conv0"] == LayerPlan("int8", "int8")
    assert layers["sum"] == LayerPlan("int8", None)


def test_a_kept_layer_or_operator_stays_in_float() -> None:
    layers, tensors = placed(residual(), "scores", keep=("conv6", "Add"))
    assert layers == ["conv0", "conv3", "conv9", "scores"]
    # What follows the Add has nothing in low precision to follow, but the Gemm still reads codes.
    assert tensors == ["x", "clip2", "clip5", "clip8", "batchnormalization10", "flatten13"]


def test_concat_and_pooling_move_codes() -> None:
    net = Net()
    left, right = net.conv("x", 4, 3), net.op("Relu", net.conv("x", 4, 3))
    pooled = net.op("MaxPool", net.op("Concat", left, right, axis=1), kernel_shape=[2, 2], strides=[2, 2])
    net._channels[pooled] = 8
    last = net.conv(pooled, 4)
    model = ready(net, last)
    layers = placement.place(model.graph, TARGET)
    assert [*layers] == ["conv0", "conv1", "concat3", "maxpool4", "conv5"]
    tensors = placement.quantized_tensors(model.graph, TARGET, layers)
    roots = {graphs.value(p.node): graphs.value(p.root) for p in tensors.values()}
    assert roots["maxpool4"] == "concat3"
    assert roots["concat3"] == "concat3"


def test_what_only_moves_codes_towards_float_stays_in_float() -> None:
    net = Net()
    moved = net.op("Transpose", net.conv("x", 4), perm=[0, 2, 3, 1])
    layers, tensors = placed(net, net.op("Softmax", moved, axis=-1))
    assert layers == ["conv0"]
    assert tensors == ["x", "conv0"]


def test_a_transposed_convolution_stays_in_float_on_onnxruntime() -> None:
    net = Net()
    weight = net.weight(net.normal(8, 4, 2, 2, gain=0.3))
    up = net.op("ConvTranspose", net.op("Relu", net.conv("x", 8)), weight, strides=[2, 2], kernel_shape=[2, 2])
    net._channels[up] = 4
    layers, _ = placed(net, net.conv(up, 4))
    assert layers == ["conv0", "conv3"]


@pytest.mark.parametrize(("gate", "low"), [("Sigmoid", True), ("HardSigmoid", False)])
def test_squeeze_and_excitation(gate: str, low: bool, tmp_path: Path) -> None:
    net = Net()
    features = net.op("Relu", net.conv("x", 8, 3))
    squeezed = net.op("Relu", net.conv(net.op("GlobalAveragePool", features), 4))
    weighed = net.op("Mul", features, net.op(gate, net.conv(squeezed, 8), name="gate"), name="weighed")
    layers, _ = placed(net, net.conv(weighed, 4, channels=8))
    assert ("gate" in layers) == ("weighed" in layers) == low
    model, plan = quantized(net.model(f"conv{len(net._nodes) - 1}"), TARGET)
    assert fused(model, tmp_path)["QLinearConv"] == sum(layer.weight is not None for layer in plan.layers.values()) == 4


def test_the_parts_of_a_split_share_its_range(tmp_path: Path) -> None:
    net = Net()
    left, right = net.split("Split", [net.op("Relu", net.conv("x", 8, 3))], 2, "halves", axis=1)
    joined = net.op("Concat", left, net.conv(right, 4, 3), axis=1, name="joined")
    last = net.conv(joined, 4, channels=8)
    model = ready(net, last)
    layers = placement.place(model.graph, TARGET)
    roots = {
        graphs.value(p.node): graphs.value(p.root)
        for p in placement.quantized_tensors(model.graph, TARGET, layers).values()
    }
    assert roots[left] == roots[right] == "relu1"
    found = fused(quantized(net.model(last), TARGET)[0], tmp_path)
    assert (found["QLinearConv"], found["QLinearConcat"], found["Split"]) == (3, 1, 1)
    assert "Conv" not in found


def test_a_split_layer_is_calibrated() -> None:
    net = Net()
    left, right = net.split("Split", [net.conv("x", 8, 3)], 2, "halves", axis=1)
    gated = net.op("Mul", left, net.op("Sigmoid", right))
    _, plan = quantized(net.model(net.conv(gated, 4, channels=4)), TARGET)
    assert len(plan.layers) == 5


@pytest.mark.parametrize("reader", ["ArgMax", "Greater"])
def test_a_reader_that_makes_no_numbers_judges_no_range(reader: str) -> None:
    net = Net()
    scores = net.conv("x", 4, 3)
    result = (
        net.op("ArgMax", scores, axis=1) if reader == "ArgMax" else net.op(reader, scores, net.weight(np.float32(0)))
    )
    _, plan = quantized(net.model(result), TARGET)
    assert [*plan.ranges] == ["x", "conv0"]


def test_shapes_are_read_past_the_pairs(tmp_path: Path) -> None:
    """ShuffleNet with a free batch and image asks for the shape of every Concat; each must still be fused."""
    made, plan = quantized(load(shipped("shufflenet")), TARGET)
    for node in graphs.computes(made.graph):
        if graphs.operator(node) == "Shape":
            assert graphs.operator(node.args[0]) != "DequantizeLinear"
        if graphs.operator(node) == "QuantizeLinear" and node.args[0].op != "placeholder":
            assert graphs.sole_user(node.args[0]) is node
    found = fused(made, tmp_path)
    assert found["QLinearConv"] + found["QGemm"] == sum(layer.weight is not None for layer in plan.layers.values())
    assert found["QLinearConcat"] == 6
    assert found["Conv"] == found["DequantizeLinear"] == 0


@every_target
def test_nothing_is_placed_that_the_target_does_not_name(name: str) -> None:
    target = targets.load(name)
    model = ready(residual(), "scores")
    layers = placement.place(model.graph, target)
    by_name = {graphs.key(node): graphs.operator(node) for node in graphs.computes(model.graph)}
    assert {by_name[layer] for layer in layers} <= target.operators.keys()
    nothing = replace(target, operators={})
    assert placement.place(model.graph, nothing) == {}
    assert placement.quantized_tensors(model.graph, nothing, {}) == {}


def test_outputs_keep_their_names(tmp_path: Path) -> None:
    net = residual()
    net.op("Relu", "sum", name="features")
    made, _ = quantized(net.model("scores", "features", "clip5"), TARGET)
    assert [spec.name for spec in made.outputs] == ["scores", "features", "clip5"]
    written = to_onnx(made)
    onnx.checker.check_model(written, full_check=True)
    assert [output.name for output in written.graph.output] == ["scores", "features", "clip5"]


def test_a_free_batch_stays_free(tmp_path: Path) -> None:
    model = residual().model("scores")
    made, _ = quantized(model, TARGET)
    for size in (1, 3):
        (samples,) = batches(model, 1, size)
        assert made(samples)["scores"].shape == (size, 5)
    assert kinds(made).count("QuantizeLinear") == 8
