"""A table of a small net on real engines: whose time every executed node is, and what it says of each layer."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from convkit.compress import calibration, placement
from convkit.compress import target as targets
from convkit.compress.apply import apply_prepared, prepare
from convkit.compress.calibration import Calibration
from convkit.compress.errors import ConvkitError
from convkit.compress.model import Model
from convkit.compress.plan import LayerPlan, Plan
from convkit.compress.target import Runs, Target
from convkit.export.onnx import to_onnx
from convkit.runtimes.bench.candidate import Candidate
from convkit.runtimes.bench.clock import SystemClock
from convkit.runtimes.bench.worker import InlineWorker, Worker
from convkit.runtimes.latency.builds import patterns
from convkit.runtimes.latency.measure import Job, measure
from convkit.runtimes.latency.profile import Schedule
from convkit.runtimes.latency.roofline import estimate
from convkit.runtimes.latency.structure import OUTSIDE, structure
from convkit.runtimes.latency.table import predict
from convkit.runtimes.session import Options, open_session
from tests.compress.network import EXACT, batches, residual

TARGETS = {"onnxruntime-cpu": ("f32",), "openvino-cpu": ("f32", "bf16")}
CASES = [(target, precision) for target, precisions in TARGETS.items() for precision in precisions]


@pytest.fixture(scope="module")
def model() -> Model:
    given = residual(1, 3, 32, 32).model("scores")
    return prepare(given, EXACT, batches(given))


def inline(candidate: Candidate) -> Worker:
    return InlineWorker(open_session(candidate.engine, candidate.path, candidate.options), SystemClock())


def job(model: Model, target: Target, folder: Path, precision: str) -> Job:
    samples = batches(model)
    everything = placement.place(model.graph, target)
    layers, ranges = calibration.calibrate(model, target, everything, Calibration(samples, samples))

    def write(chosen: Mapping[str, LayerPlan]) -> Path:
        plan = Plan(model.digest, target.name, (), {name: layers[name] for name in chosen}, ranges)
        path = folder / f"{len(list(folder.iterdir()))}.onnx"
        written = to_onnx(apply_prepared(model, plan, target, samples), target.opset)
        path.write_bytes(written.SerializeToString())
        return path

    sample = {name: tensor.numpy() for name, tensor in samples[0].items()}
    return Job(model, target, EXACT, write, Options(threads=1, precision=precision), sample, inline)


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_nine_tenths_of_the_time_belong_to_layers(name: str, precision: str, model: Model, tmp_path: Path) -> None:
    target = targets.load(name)
    (table,) = measure([job(model, target, tmp_path, precision)], Schedule(budget=2.0))
    assert table.mapped >= 0.9
    assert not table.estimated
    assert table.floating == ("bf16" if precision == "bf16" else "fp32")
    network = structure(model, target)
    assert tuple(table.layers) == network.layers
    for layer, seconds in table.layers.items():
        assert set(seconds) == {table.floating, *([network.low[layer]] if layer in network.low else [])}
    assert 0 < predict(table, network.low) < 1
    assert 0 < predict(table, {}) < 1


def test_floats_that_single_layers_run_in_have_a_build_each(model: Model) -> None:
    """A GPU's; on a CPU they are a setting of the whole network, or none."""
    found = patterns(model, targets.load("trt"))
    assert list(found)[:2] == ["float", "low"]
    singles = {name: layers for name, layers in found.items() if name in ("fp16", "bf16", "fp8_e4m3")}
    assert len(singles) == 3
    for name, layers in singles.items():
        assert [key for key in layers if key.startswith("conv")] == ["conv0", "conv3", "conv6", "conv9"]
        assert {(layer.activation, layer.weight) for layer in layers.values() if layer.weight} == {(name, name)}
    for name in TARGETS:
        assert set(patterns(model, targets.load(name))) <= {"float", "low", "even", "odd", "pairs"}


def test_a_format_that_the_device_lacks_is_left_out(model: Model, tmp_path: Path) -> None:
    """Its build is refused; that of another layer is the user's error."""
    target = replace(targets.load("onnxruntime-cpu"), formats={"fp16": Runs("fp16"), "bf16": Runs("bf16")})
    asked = job(model, target, tmp_path, "f32")

    def refusing(candidate: Candidate) -> Worker:
        if candidate.name == "bf16":
            raise ConvkitError("this device has no BF16")
        return inline(candidate)

    (table,) = measure([replace(asked, open=refusing)], Schedule(budget=1.0))
    assert "fp16" in table.layers["conv0"]
    assert "bf16" not in table.layers["conv0"]

    def broken(_: Candidate) -> Worker:
        raise ConvkitError("nothing opens")

    with pytest.raises(ConvkitError, match="nothing opens"):
        measure([replace(asked, open=broken)], Schedule(budget=1.0))


@pytest.mark.parametrize("name", TARGETS)
def test_a_kernel_is_one_layer_and_its_tensor_joins_it_to_its_readers(name: str, model: Model) -> None:
    network = structure(model, targets.load(name))
    convs = [layer for layer in network.layers if layer.startswith("conv")]
    assert len(convs) == 4
    assert not [layer for layer in network.layers if layer.startswith("clip")]
    assert set(network.low) <= set(network.layers)
    made = {tensor.producer: tensor for tensor in network.tensors}
    assert made[OUTSIDE].readers == (convs[0],)
    assert made[convs[0]].readers == (convs[1], "sum")
    assert made[convs[0]].name.startswith("clip")
    assert made[network.layers[-1]].readers == (OUTSIDE,)


@pytest.mark.parametrize("name", TARGETS)
def test_the_builds_let_every_neighbour_differ_both_ways(name: str, model: Model) -> None:
    found = patterns(model, targets.load(name))
    assert list(found)[:2] == ["float", "low"]
    assert len(found) <= 5
    network = structure(model, targets.load(name))
    for tensor in network.tensors:
        if tensor.producer in network.low and any(layer.startswith("conv") for layer in tensor.readers):
            states = {(tensor.producer in low, tensor.readers[0] in low) for low in found.values()}
            assert {(True, False), (False, True)} <= states


@pytest.mark.parametrize("name", TARGETS)
def test_a_roofline_is_called_an_estimate_and_knows_that_bytes_count(name: str, model: Model) -> None:
    target = targets.load(name)
    table = estimate(model, target, EXACT)
    network = structure(model, target)
    assert table.estimated
    assert table.fingerprint.engine == target.engine
    assert predict(table, network.low) < predict(table, {})
    assert target.roofline is not None
    heavier = replace(target, roofline=replace(target.roofline, layer_seconds=1.0))
    slow = estimate(model, heavier, EXACT)
    assert predict(slow, {}) == pytest.approx(len(network.layers), rel=0.01)
    assert predict(slow, {network.layers[0]: "uint8"}) > predict(slow, {}) + 0.9
