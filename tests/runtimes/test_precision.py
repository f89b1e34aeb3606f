"""What a target's rules put in low precision, its engine really runs there."""

from pathlib import Path

import numpy as np
import pytest

from convkit.export.onnx import to_onnx
from convkit.runtimes.session import NodeTime, Options, open_session
from tests import here
from tests.compress.network import Net, batches, quantized

ACTIVATIONS = {"Relu": {}, "LeakyRelu": {"alpha": 0.1}, "HardSwish": {}, "Sigmoid": {}}


def ran(net: Net, output: str, target: str, folder: Path) -> list[NodeTime]:
    """What the engine of `target` runs for the net, quantized wherever the target can."""
    model = net.model(output)
    rules = here.target(target)
    (folder / "net.onnx").write_bytes(to_onnx(quantized(model, rules)[0]).SerializeToString())
    session = open_session(rules.engine, str(folder / "net.onnx"), Options(threads=1))
    samples = {name: tensor.numpy() for name, tensor in batches(model)[0].items()}
    nodes = session.profile(samples, 1)
    session.close()
    return nodes


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_openvino_runs_convolutions_and_what_follows_them_in_eight_bits(activation: str, tmp_path: Path) -> None:
    net = Net(4, 16, 24, 24)
    features = net.op(activation, net.conv("x", 32, 3), **ACTIVATIONS[activation])
    features = net.op(activation, net.conv(features, 32, 3), **ACTIVATIONS[activation])
    weight = net.weight(net.normal(32, 16, 4, 4, gain=0.1))
    up = net.op("ConvTranspose", features, weight, strides=[2, 2], pads=[1] * 4, kernel_shape=[4, 4])
    nodes = ran(net, up, "openvino-cpu", tmp_path)
    layers = [node for node in nodes if node.operator.startswith("Convolution")]
    assert [node.dtype for node in layers] == ["int8"] * 3
    assert not [node for node in nodes if node.operator in {"Subtract", "Multiply", "Eltwise", "Math"}]


def test_onnxruntime_pads_an_image_and_runs_its_convolution_in_integers(tmp_path: Path) -> None:
    net = Net(1, 3, 24, 24)
    padded = net.op("Pad", "x", net.weight([0, 0, 0, 0, 0, 1, 0, 0]))
    relu = net.op("Relu", net.conv(padded, 16, 3, stride=2, channels=4))
    nodes = ran(net, relu, "onnxruntime-cpu", tmp_path)
    kinds = [node.operator for node in nodes]
    assert kinds.index("QuantizeLinear") < kinds.index("Pad") < kinds.index("QLinearConv")
    assert "Conv" not in kinds


@pytest.mark.parametrize("clipped", [False, True])
def test_a_layer_that_is_kept_in_float_runs_in_float_between_quantized_ones(clipped: bool, tmp_path: Path) -> None:
    net = Net(1, 3, 24, 24)
    first = net.op("Relu", net.conv("x", 16, 3))
    middle = net.conv(first, 16, 3)
    last = net.conv(net.op("Clip", middle, net.weight(np.float32(0))) if clipped else middle, 16, 3)
    model = net.model(last)
    rules = here.target("onnxruntime-cpu")
    low, _ = quantized(model, rules, keep={middle})
    (tmp_path / "net.onnx").write_bytes(to_onnx(low).SerializeToString())
    session = open_session("onnxruntime", str(tmp_path / "net.onnx"), Options(threads=1))
    sample = batches(model)[0]
    nodes = session.profile({"x": sample["x"].numpy()}, 1)
    assert [node.operator for node in nodes if "Conv" in node.operator] == ["QLinearConv", "Conv", "QLinearConv"]
    (found,) = session.run({"x": sample["x"].numpy()}).values()
    (wanted,) = low(sample).values()
    assert float(np.abs(found - wanted.numpy()).max()) <= 1e-5 * float(np.abs(wanted.numpy()).max())
