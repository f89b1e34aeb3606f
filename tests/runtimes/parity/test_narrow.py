"""Parity in number types that numpy lacks, or that round coarsely: floats of eight and of sixteen bits."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from convkit.compress import arrays, record
from convkit.compress import target as targets
from convkit.compress.apply import apply
from convkit.compress.data import Data
from convkit.compress.model import ModelRef, load
from convkit.compress.plan import LayerPlan, Plan, Range
from convkit.export import exporter
from convkit.runtimes.parity.checks import Tolerance
from convkit.runtimes.parity.compare import Comparison, compare
from convkit.runtimes.parity.pair import Pair
from tests.compress.network import Net

GPU = targets.load("trt")
RANGES = {name: Range(-4.0, 4.0, "minmax") for name in ("x", "conv0", "conv1")}


def write(folder: Path, activation: str = "", weight: str = "") -> str:
    """Two convolutions in these formats, or in float, as a GPU's engine has them."""
    net = Net("N", 8, 8, 8, seed=1)
    model = net.model(net.conv(net.conv("x", 8, 3), 4, 3))
    plan = Plan(model.digest, GPU.name, (), dict.fromkeys(("conv0", "conv1"), LayerPlan(activation, weight)), RANGES)
    made = apply(model, plan, GPU) if weight else model
    path = folder / f"{weight or 'float'}.onnx"
    onnx.save(exporter.of_engine(GPU.engine).proto(made, GPU.opset), path)
    return str(path)


def compared(reference: str, candidate: str) -> Comparison:
    held = {"x": np.random.default_rng(0).normal(size=(4, 8, 8, 8)).astype(np.float32)}
    pair = Pair(load(ModelRef(reference)), load(ModelRef(candidate)), candidate)
    data = Data(held, None, record.digest_arrays(held))
    return compare(pair, data, ["eager", "onnxruntime"], Tolerance(), layers=True)


@pytest.mark.parametrize("weight", ["fp8_e4m3", "fp4_e2m1"])
def test_codes_of_eight_bit_floats_are_compared(tmp_path: Path, weight: str) -> None:
    file = write(tmp_path, "fp8_e4m3", weight)
    found = compared(file, file)
    assert found.passed
    codes = [check for check in found.checks if check.measure == "codes"]
    assert all(
        check.value > 0.98 for check in codes
    )  # sums that lie half way between two numbers are rounded either way
    assert {check.layer for check in found.checks if check.measure == "sqnr"} >= {"x", "conv0"}
    assert {check.tolerance for check in found.checks if check.measure == "sqnr" and check.layer} == {"sqnr"}


def test_a_float_network_beside_its_form_in_eight_bit_floats(tmp_path: Path) -> None:
    found = compared(write(tmp_path), write(tmp_path, "fp8_e4m3", "fp8_e4m3"))
    assert found.passed
    within = [check for check in found.checks if check.layer == "conv0"]
    assert {check.measure for check in within} == {"sqnr"}
    assert all(20 < check.value < 60 for check in within)


def test_the_layer_whose_eight_bit_weights_were_changed_is_named(tmp_path: Path) -> None:
    file = write(tmp_path, "fp8_e4m3", "fp8_e4m3")
    model = onnx.load(file)
    (weight,) = (held for held in model.graph.initializer if held.name == "conv0.weight_quantized")
    weight.raw_data = bytes(code ^ 0x80 for code in weight.raw_data)
    onnx.save(model, tmp_path / "changed.onnx")
    found = compared(file, str(tmp_path / "changed.onnx"))
    assert not found.passed
    assert next(check.layer for check in found.checks if not check.passed) == "conv0"


def test_layers_in_sixteen_bits_are_held_to_their_own_rounding(tmp_path: Path) -> None:
    file = write(tmp_path, "fp16", "fp16")
    found = compared(file, file)
    assert found.passed
    limits = {check.limit for check in found.checks if check.measure == "relative"}
    assert limits == {2.0**-10}


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "bfloat16"])
def test_bits_and_numbers_of_an_engine_are_the_same_tensor(name: str) -> None:
    held = torch.randn(64, generator=torch.Generator().manual_seed(0)).to(getattr(torch, name))
    bits = held.view(torch.uint8 if held.itemsize == 1 else torch.int16).numpy()
    bits = bits.view(np.uint16) if held.itemsize > 1 else bits  # as ONNX Runtime has them
    for given in (bits, arrays.array(held)):
        assert torch.equal(arrays.tensor(given, name).float(), held.float())
        assert np.array_equal(arrays.read(given, name), held.float().numpy())
        assert arrays.tensor(given[0:1].reshape(()), name).shape == ()  # one number stays one
