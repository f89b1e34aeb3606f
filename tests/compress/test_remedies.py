"""The search watches its own result: a collapse is seen, the next remedy tried, and the last gives a good network."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from convkit.compress import calibration, simulate
from convkit.compress import target as targets
from convkit.compress.apply import apply
from convkit.compress.errors import ConvkitError
from convkit.compress.model import Model
from convkit.compress.plan import LayerPlan, Plan, dump
from convkit.compress.search import remedies
from convkit.compress.search.remedies import REMEDIES, Attempt, Task
from tests.compress.network import Net, batches, residual

TARGET = targets.load("onnxruntime-cpu")
GOOD = 20.0
"""dB that make a result good here."""


def task(model: Model, **changes: object) -> Task:
    """Calibrated on some inputs, judged by SQNR on others."""
    samples, (held,) = batches(model, 2), batches(model, 1, 8, seed=7)
    wanted = next(iter(model(held).values()))

    def score(made: Model) -> Mapping[str, float]:
        noise = next(iter(made(held).values())) - wanted
        return {"sqnr": float(10 * torch.log10(wanted.square().sum() / noise.square().sum().clamp(min=1e-20)))}

    plain = Task(
        model,
        TARGET,
        calibration.Calibration(samples, samples),
        score,
        rank=lambda scores: scores["sqnr"],
        good=lambda scores: scores["sqnr"] >= GOOD,
    )
    return replace(plain, **changes)


def wide_channel(times: float) -> Model:
    """One channel of four is so many times wider than the others; the weights behind even that out."""
    net = Net(seed=6)
    weight, after = net.normal(4, 3, 3, 3, gain=0.3), net.normal(3, 4, 1, 1, gain=0.5)
    weight[0] *= np.float32(times)
    after[:, 0] /= np.float32(times)
    first = net.conv("x", 4, 3, weight=weight, bias=False)
    return net.model(net.conv(net.op("Relu", first), 3, weight=after))


@pytest.fixture(scope="module")
def hopeless() -> list[Attempt]:
    """Tried on a net that no exact rescaling helps: its channels are set apart by a product."""
    return list(remedies.attempts(task(unequal())))


def unequal() -> Model:
    net = Net(seed=6)
    factor = np.float32([1e4, 1, 1, 1])[None, :, None, None]
    scaled = net.op("Mul", net.op("Relu", net.conv("x", 4, 3)), net.weight(factor))
    after = net.normal(3, 4, 1, 1, gain=0.5)
    after[:, 0] *= np.float32(1e-4)
    return net.model(net.conv(net.op("Relu", net.conv(scaled, 3, weight=after, channels=4)), 3))


def test_a_good_network_takes_the_usual_remedies_only() -> None:
    net = Net(seed=6)
    tried = list(remedies.attempts(task(net.model(net.conv(net.op("Relu", net.conv("x", 4, 3)), 3)))))
    assert [attempt.remedy for attempt in tried] == [remedy.name for remedy in REMEDIES[: remedies._ALWAYS]]
    assert all(attempt.good for attempt in tried)


def test_a_remedy_that_changes_nothing_is_not_tried() -> None:
    """Between convolutions of `residual` there is a ReLU6, which no channel can be scaled across."""
    tried = list(remedies.attempts(task(residual().model("scores"))))
    assert [attempt.remedy for attempt in tried] == [REMEDIES[0].name]


@pytest.mark.parametrize(("method", "times"), [("balance_channels", 60), ("equalize", 1e4)])
def test_exact_rescaling_heals_a_wide_channel(method: str, times: float) -> None:
    first, *others = tried = list(remedies.attempts(task(wide_channel(times))))
    (healed,) = (attempt for attempt in others if method in attempt.plan.methods)
    assert (first.good, healed.good) == (False, True)
    assert remedies.best(tried, lambda scores: scores["sqnr"]) is not first


def test_a_collapse_is_seen_and_every_remedy_tried(hopeless: list[Attempt]) -> None:
    names = [attempt.remedy for attempt in hopeless]
    assert names[: len(REMEDIES)] == [remedy.name for remedy in REMEDIES]
    assert not any(attempt.good for attempt in hopeless[: len(REMEDIES)])
    assert names[len(REMEDIES)].endswith("; 1 layers in float")


def test_the_layer_that_costs_most_goes_back_to_float_first(hopeless: list[Attempt]) -> None:
    guilty, last = "conv3", hopeless[-1]
    assert last.good
    assert guilty in hopeless[0].plan.layers
    assert guilty not in last.plan.layers
    assert [name for name, layer in last.plan.layers.items() if layer.weight]
    assert remedies.best(hopeless, lambda scores: scores["sqnr"]) is last


def test_what_is_scored_is_what_the_plan_makes(hopeless: list[Attempt]) -> None:
    model = unequal()
    search = task(model)
    for attempt in (hopeless[0], hopeless[1], hopeless[-1]):
        again = apply(model, attempt.plan, TARGET, search.data.probe)
        assert search.score(again) == pytest.approx(attempt.scores, abs=1e-3)


def test_the_last_resort_is_the_float_network() -> None:
    """Where nothing is good enough, everything is in float in the end, and that is the network given."""
    model = residual().model("scores")
    tried = list(remedies.attempts(task(model, good=lambda scores: scores["sqnr"] > 100)))
    steps = len(remedies._FLOAT_STEPS)
    quantized = [sum(layer.weight is not None for layer in a.plan.layers.values()) for a in tried[-steps - 1 :]]
    assert quantized == sorted(quantized, reverse=True)
    assert tried[-1].plan.layers == {}
    assert tried[-1].good
    assert not simulate.is_quantized(apply(model, tried[-1].plan, TARGET, batches(model)))


def test_nothing_to_quantize_is_good_at_once() -> None:
    net = Net()
    tried = list(remedies.attempts(task(net.model(net.op("Softmax", net.op("Tanh", "x"), axis=1)))))
    assert [attempt.plan.layers for attempt in tried] == [{}]
    assert all(attempt.good for attempt in tried)


@pytest.mark.parametrize("keep", ["conv6", "Add", "Conv"])
def test_what_is_kept_stays_in_float_in_every_attempt(keep: str) -> None:
    search = task(residual().model("scores"), keep=(keep,), good=lambda scores: scores["sqnr"] > 60)
    for attempt in remedies.attempts(search):
        kept = {"conv6": ["conv6"], "Add": ["sum"], "Conv": ["conv0", "conv3", "conv6", "conv9"]}[keep]
        assert not {*kept} & attempt.plan.layers.keys()


def test_the_search_gives_the_same_plans_again(hopeless: list[Attempt]) -> None:
    again = list(remedies.attempts(task(unequal())))
    assert [dump(attempt.plan) for attempt in again] == [dump(attempt.plan) for attempt in hopeless]
    assert [attempt.scores for attempt in again] == [attempt.scores for attempt in hopeless]


def test_a_plan_given_is_scored_with_what_it_lacks_calibrated() -> None:
    model = residual().model("scores")
    search = task(model)
    first = next(iter(remedies.attempts(search)))
    bare = replace(first.plan, ranges={})
    given = remedies.given(search, bare)
    assert given.plan.ranges.keys() == first.plan.ranges.keys()
    assert given.scores["sqnr"] == pytest.approx(first.scores["sqnr"], abs=3)
    without = replace(first.plan, layers={n: line for n, line in first.plan.layers.items() if n != "conv3"})
    assert "conv3" not in remedies.given(search, without).plan.layers
    with pytest.raises(ConvkitError, match="the plan is for model"):
        remedies.given(search, Plan("00" * 32, TARGET.name))


@pytest.mark.parametrize("layer", ["sizes", "shaped"])
def test_an_operator_on_sizes_is_no_layer_of_a_plan(layer: str) -> None:
    # It is said before ranges are sought: there are none of whole numbers.
    net = Net("N", 3, "H", "W")
    features = net.op("Relu", net.conv("x", 4, 3))
    first, last = (net.weight(np.int64([at])) for at in (2, 4))
    sizes = net.op("Slice", net.op("Shape", features), first, last, name="sizes")
    shaped = net.op("Reshape", sizes, net.weight(np.int64([2, 1])), name="shaped")
    model = net.model(net.head(features), shaped)
    plan = Plan(model.digest, TARGET.name, layers={layer: LayerPlan("uint8")})
    with pytest.raises(ConvkitError, match=f"layer '{layer}' reads no float32 numbers that could be in uint8"):
        remedies.given(task(model), plan)
    with pytest.raises(ConvkitError, match=f"layer '{layer}' reads no float32 numbers that could be in uint8"):
        apply(model, plan, TARGET)


def test_a_convolution_in_float16_is_no_layer_of_a_plan() -> None:
    net = Net()
    half = net.op("Cast", "x", to=onnx.TensorProto.FLOAT16)
    weight = net.weight(net.normal(4, 3, 1, 1).astype(np.float16))
    low = net.op("Conv", half, weight, name="low", kernel_shape=[1, 1])
    model = net.model(net.head(net.op("Cast", low, to=onnx.TensorProto.FLOAT), channels=4))
    plan = Plan(model.digest, TARGET.name, layers={"low": LayerPlan("uint8", "int8")})
    with pytest.raises(ConvkitError, match="layer 'low' reads no float32 numbers that could be in uint8"):
        remedies.given(task(model), plan)


def test_the_best_is_the_highest_ranked_good_one() -> None:
    def attempt(name: str, score: float, good: bool) -> Attempt:
        return Attempt(name, Plan("m", "t"), {"sqnr": score}, good)

    tried = [attempt("a", 10, True), attempt("b", 30, False), attempt("c", 20, True)]
    assert remedies.best(tried, lambda scores: scores["sqnr"]).remedy == "c"
    assert remedies.best(tried[1:2], lambda scores: scores["sqnr"]).remedy == "b"
