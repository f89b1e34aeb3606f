"""Calibration: every quantized tensor gets the range whose error at its readers was measured smallest."""

import copy
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from convkit.compress import calibration, parts, placement, weights
from convkit.compress import format as formats
from convkit.compress import graph as graphs
from convkit.compress import target as targets
from convkit.compress.apply import prepare
from convkit.compress.calibration import Calibration
from convkit.compress.errors import ConvkitError
from convkit.compress.method import Samples
from convkit.compress.model import Model
from convkit.compress.plan import LayerPlan, Plan, Range
from tests.compress.network import EXACT, Net, batches, residual

TARGET = targets.load("onnxruntime-cpu")
CALIBRATORS = parts.names("compress/calibrators")


def ready(net: Net, *outputs: str) -> Model:
    model = net.model(*outputs)
    return prepare(model, EXACT, batches(model))


def calibrated(
    model: Model, samples: list[Samples], calibrators: tuple[str, ...] | None = None
) -> tuple[dict[str, LayerPlan], dict[str, Range]]:
    layers = placement.place(model.graph, TARGET)
    return calibration.calibrate(model, TARGET, layers, Calibration(samples, samples), calibrators)


def extremes(model: Model, samples: list[Samples]) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}

    def watch(node: torch.fx.Node, tensor: torch.Tensor, _: Mapping[torch.fx.Node, object]) -> None:
        low, high = found.get(graphs.value(node), (0.0, 0.0))
        found[graphs.value(node)] = min(low, float(tensor.min())), max(high, float(tensor.max()))

    calibration.observe(model, samples, watch)
    return found


def convolutions(model: Model) -> list[torch.nn.Conv2d]:
    return [module for module in model.graph.modules() if isinstance(module, torch.nn.Conv2d)]


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(((found - wanted).square().sum() / wanted.square().sum()).detach())


def test_every_quantized_tensor_gets_a_range_inside_its_extremes() -> None:
    model = ready(residual(), "scores")
    samples = batches(model, 3)
    layers, ranges = calibrated(model, samples)
    placed = placement.quantized_tensors(model.graph, TARGET, layers)
    assert list(ranges) == [graphs.value(node) for node in placed]
    seen = extremes(model, samples)
    for name, chosen in ranges.items():
        assert seen[name][0] <= chosen.low <= 0 <= chosen.high <= seen[name][1]
        assert chosen.calibrator in CALIBRATORS


@pytest.mark.parametrize("name", CALIBRATORS)
def test_one_calibrator_alone_chooses_everything(name: str) -> None:
    model = ready(residual(), "scores")
    samples = batches(model, 2)
    _, ranges = calibrated(model, samples, calibrators=(name,))
    assert {chosen.calibrator for chosen in ranges.values()} == {name}
    if name == "minmax":
        seen = extremes(model, samples)
        assert all((r.low, r.high) == pytest.approx(seen[tensor]) for tensor, r in ranges.items())


def test_the_chosen_range_has_the_least_error_at_its_reader() -> None:
    """Counted anew, by hand, for a convolution that reads a tensor with an outlier."""
    net = Net(seed=5)
    model = ready(net, net.conv("x", 6, 3))
    samples = batches(model, 2)
    samples[0]["x"][0, 0, 0, 0] = 60.0
    _, ranges = calibrated(model, samples)
    (conv,) = convolutions(model)
    histogram = calibration.distributions(model, samples, [_node(model, "x")])[_node(model, "x")]
    number = formats.load("uint8")
    errors = {}
    for name, (low, high) in calibration.candidates(histogram, number, CALIBRATORS).items():
        scale, zero = number.parameters(torch.tensor(low), torch.tensor(high))
        errors[name] = sum(relative_error(conv(number.fake(s["x"], scale, zero)), conv(s["x"])) for s in samples)
    assert ranges["x"].calibrator == min(errors, key=errors.__getitem__)
    assert len(set(errors.values())) > 1


def _node(model: Model, name: str) -> torch.fx.Node:
    return next(node for node in model.graph.graph.nodes if graphs.value(node) == name)


def test_the_float_network_is_as_it_was() -> None:
    """Weights are rounded in place while they are judged, and put back."""
    model = ready(residual(), "scores")
    before = {name: tensor.clone() for name, tensor in model.graph.state_dict().items()}
    calibrated(model, batches(model))
    assert all(torch.equal(model.graph.state_dict()[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("seed", range(4))
def test_the_weight_rule_with_the_least_error_is_chosen(seed: int) -> None:
    net = Net(seed=seed)
    model = ready(net, net.conv("x", 4, 3))
    samples, (conv,) = batches(model), convolutions(model)
    layers, _ = calibrated(model, samples)
    errors = {}
    for rule in weights.rules(formats.load("int8")):
        changed = copy.deepcopy(conv)
        changed.weight.data = weights.rounded(conv.weight, formats.load("int8"), rule)
        errors[rule] = sum(relative_error(changed(s["x"]), conv(s["x"])) for s in samples)
    assert layers["conv0"].weight_range == min(errors, key=errors.__getitem__)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_tensor_that_is_not_finite_is_named(value: float) -> None:
    net = Net()
    blown = net.op("Mul", net.conv("x", 4), net.weight(np.float32(3e38)), name="blown")
    again = net.op("Mul", blown, net.weight(np.float32(1e10)), name="again")
    model = ready(net, net.conv(again, 2, channels=4))
    with pytest.raises(ConvkitError, match="tensor 'again' is NaN or infinite on the calibration data"):
        calibration.distributions(model, batches(model), [_node(model, "again")])
    samples = batches(model)
    samples[0]["x"][0, 0, 0, 0] = value
    with pytest.raises(ConvkitError, match="tensor 'x' is NaN or infinite"):
        calibration.distributions(model, samples, [_node(model, "x")])


def test_constant_and_silent_tensors_get_a_range() -> None:
    """A Relu that lets nothing through, and one that always gives the same."""
    net = Net()
    silent = net.op("Relu", net.conv("x", 4, offset=np.full(4, -1e6, np.float32)))
    steady = net.op("Clip", net.conv("x", 4, offset=np.full(4, 1e6, np.float32)), "", net.weight(np.float32(2)))
    model = ready(net, net.conv(silent, 2), net.conv(steady, 2))
    _, ranges = calibrated(model, batches(model))
    assert (ranges[silent].low, ranges[silent].high) == (0, 0)
    assert (ranges[steady].low, ranges[steady].high) == (0, 2)


def test_a_plan_is_completed_where_it_lacks_ranges() -> None:
    model = ready(residual(), "scores")
    samples = Calibration(batches(model), batches(model))
    layers, ranges = calibration.calibrate(model, TARGET, placement.place(model.graph, TARGET), samples)
    plan = Plan(model.digest, TARGET.name, EXACT, layers, ranges)
    assert calibration.complete(model, TARGET, plan, samples) is plan
    holes = replace(plan, ranges={name: r for name, r in ranges.items() if name not in ("x", "sum")})
    assert calibration.complete(model, TARGET, holes, samples).ranges == plan.ranges


def test_the_same_samples_in_other_batches_give_the_same_extremes() -> None:
    model = ready(residual(), "scores")
    (whole,) = batches(model, 1, 8)
    single = [{"x": whole["x"][i : i + 1]} for i in range(8)]
    one, other = (calibrated(model, samples, calibrators=("minmax",))[1] for samples in ([whole], single))
    for name, chosen in one.items():
        assert (chosen.low, chosen.high) == pytest.approx((other[name].low, other[name].high), rel=1e-5)
