"""The float precision of an engine: what is computed in float is rounded as OpenVINO's setting does, nothing else."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch

from convkit.compress import parts, simulate
from convkit.compress import target as targets
from convkit.compress.apply import prepare
from convkit.compress.precision import in_precision
from convkit.export.onnx import to_onnx
from convkit.runtimes.session import Options, open_session
from tests.compress.network import EXACT, Net, batches, kinds, quantized, residual

OPENVINO = targets.load("openvino-cpu")
TYPES = {"bf16": ml_dtypes.bfloat16, "fp16": np.float16}


def rounded(x: torch.Tensor, name: str) -> torch.Tensor:
    return torch.from_numpy(x.detach().numpy().astype(TYPES[name]).astype(np.float32))


def decibels(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(10 * torch.log10(wanted.square().sum() / (found - wanted).square().sum().clamp(min=1e-30)))


@pytest.mark.parametrize("name", TYPES)
def test_tensors_between_kernels_and_weights_are_rounded_sums_are_not(name: str) -> None:
    net = Net()
    net.head(net.relu6(net.conv("x", 8, 3)))
    model = net.model("scores")
    x = batches(model)[0]["x"]
    conv, head = (model.graph.get_submodule(layer) for layer in ("conv0", "scores"))
    weight = [rounded(layer.weight, name) for layer in (conv, head)]
    features = torch.nn.functional.conv2d(rounded(x, name), weight[0], conv.bias, padding=1).clamp(0, 6)
    pooled = rounded(rounded(features, name).mean((2, 3)), name)
    wanted = rounded(torch.nn.functional.linear(pooled, weight[1], head.bias), name)
    found = in_precision(model, OPENVINO, name)({"x": x})["scores"]
    assert decibels(found, wanted) > 90 or torch.equal(found, wanted)
    assert decibels(model({"x": x})["scores"], wanted) < 80


def test_float32_is_no_change_and_the_model_given_stays_as_it_is() -> None:
    model = residual().model("scores")
    x = batches(model)[0]
    before = model(x)["scores"]
    assert in_precision(model, OPENVINO, "fp32") is model
    in_precision(model, OPENVINO, "bf16")
    assert torch.equal(model(x)["scores"], before)


def test_integer_kernels_stay_and_only_the_float_result_is_rounded() -> None:
    model = residual().model("scores")
    low, _ = quantized(model, OPENVINO)
    integers = simulate.integers(low)
    x = batches(model)[0]
    found, wanted = in_precision(integers, OPENVINO, "bf16")(x)["scores"], integers(x)["scores"]
    assert torch.equal(found, rounded(wanted, "bf16"))


def test_a_layer_in_float_between_integer_ones_is_rounded() -> None:
    net = Net()
    last = net.conv(net.relu6(net.conv(net.relu6(net.conv("x", 8, 3)), 8, 3)), 8, 3)
    model = net.model(last)
    low, _ = quantized(model, OPENVINO, keep={"conv2"})
    integers = simulate.integers(low)
    x = batches(model)[0]
    mixed = in_precision(integers, OPENVINO, "bf16")
    assert kinds(mixed).count("Cast") > 2
    assert 30 < decibels(mixed(x)[last], integers(x)[last]) < 70


def test_sizes_are_not_rounded() -> None:
    """1025 has no bf16: a reshape to it would fail."""
    net = Net("N", 5, 205)
    shape = net.op("Shape", "x")
    whole = net.op("ReduceProd", net.op("Cast", net.op("Slice", shape, *map(net.weight, _tail())), to=1), keepdims=1)
    size = net.op("Concat", net.weight(np.array([-1])), net.op("Cast", whole, to=7), axis=0)
    model = net.model(net.op("Reshape", net.op("Relu", "x"), size, name="flat"))
    x = batches(model)[0]
    assert in_precision(model, OPENVINO, "bf16")(x)["flat"].shape == (4, 1025)


def _tail() -> list[np.ndarray]:
    return [np.array([1]), np.array([3])]


@pytest.mark.parametrize("low", [False, True])
def test_openvino_computes_the_simulation_where_the_device_can(low: bool, tmp_path: Path) -> None:
    model = residual(1, 3, 16, 16).model("scores")
    made = quantized(model, OPENVINO, keep={"conv3"})[0] if low else prepare(model, EXACT)
    (tmp_path / "net.onnx").write_bytes(to_onnx(made).SerializeToString())
    session = open_session("openvino", str(tmp_path / "net.onnx"), Options(precision="bf16"))
    x = batches(model)[0]
    found = torch.from_numpy(session.run({"x": x["x"].numpy()})["scores"])
    can = "bf16" in parts.load("runtimes", "openvino").precisions()
    simulated = in_precision(simulate.integers(made), OPENVINO, "bf16" if can else "fp32")
    assert decibels(found, simulated(x)["scores"]) > (35 if can or low else 80)
