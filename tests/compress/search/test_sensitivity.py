"""What is foretold against what is measured, and what is measured against plans that are really applied."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from convkit.compress import calibration, placement
from convkit.compress import graph as graphs
from convkit.compress import target as targets
from convkit.compress.apply import apply_prepared, prepare
from convkit.compress.calibration import Calibration
from convkit.compress.errors import ConvkitError
from convkit.compress.method import Batches
from convkit.compress.model import Model, ModelRef, load
from convkit.compress.option import FLOAT, Option
from convkit.compress.plan import LayerPlan, Plan
from convkit.compress.search.sensitivity import Losses, Probes, measured, sensitivity
from convkit.compress.search.space import layer_plan
from tests.compress.network import EXACT, Net, batches, residual

TARGET = targets.load("onnxruntime-cpu")
WEIGHTS, ACTIVATIONS = ("fp32", "int8", "int6", "int4", "int3"), ("fp32", "uint8", "uint4")
ALL = [Option(weight, activation) for weight in WEIGHTS for activation in ACTIVATIONS]
SOME = [Option.parse(text) for text in ("fp32/uint8", "int8/uint8", "int6/fp32", "int4/uint8", "int3/uint4")]


def planned(model: Model, samples: Batches, methods: tuple[str, ...] = EXACT) -> tuple[Model, Plan]:
    """`model` prepared, and a plan with everything in INT8."""
    prepared = prepare(model, methods, samples)
    layers = placement.place(prepared.graph, TARGET)
    layers, ranges = calibration.calibrate(prepared, TARGET, layers, Calibration(samples, samples), ("minmax",))
    return prepared, Plan(model.digest, TARGET.name, methods, layers, ranges)


def options(plan: Plan, of_all: Sequence[Option] = ALL) -> dict[str, list[Option]]:
    """Options of each layer; one without a weight has those of its activations."""
    return {n: [o for o in of_all if layer.weight or o.weight == "fp32"] for n, layer in plan.layers.items()}


def flat(losses: Losses) -> np.ndarray:
    return np.array([loss for by_option in losses.values() for option, loss in by_option.items() if option != FLOAT])


def linear(outputs: int = 1, seed: int = 0) -> Model:
    """Convolutions, one of them read twice, and a sum over the image: linear from end to end."""
    net = Net(seed=seed)
    first = net.conv("x", 4, 3)
    branch = net.conv(net.conv(first, 6, 3), 4)
    net.head(net.op("Add", first, branch), classes=outputs)
    return net.model("scores")


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 100), probes=st.integers(1, 3))
def test_of_a_linear_network_all_is_foretold_exactly(seed: int, probes: int) -> None:
    """One output has no direction that a probe could miss. The sum rounds one tensor that another one is made of.

    A number on the border of two codes may fall to either side, sums of floats being what they are.
    """
    model = linear(seed=seed)
    samples = batches(model, 1, seed=seed)
    model, plan = planned(model, samples)
    chosen = {name: of_layer for name, of_layer in options(plan, SOME).items() if not name.startswith("add")}
    found = sensitivity(model, TARGET, plan, chosen, samples, probes=Probes(probes, seed))
    told, true = flat(found), flat(measured(model, TARGET, plan, chosen, samples))
    np.testing.assert_allclose(told, true, rtol=0.1, atol=1e-9)
    assert np.mean(np.isclose(told, true, rtol=1e-3, atol=1e-9)) > 0.8


def test_probes_tell_the_distance_of_many_outputs_on_average() -> None:
    model = linear(outputs=20)
    samples = batches(model)
    model, plan = planned(model, samples)
    chosen = options(plan, [Option("int4", "fp32"), Option("fp32", "uint4")])
    found = flat(sensitivity(model, TARGET, plan, chosen, samples, probes=Probes(50)))
    np.testing.assert_allclose(found, flat(measured(model, TARGET, plan, chosen, samples)), rtol=0.25)


@pytest.fixture(scope="module")
def small() -> tuple[Model, Plan, Batches, Batches]:
    """MobileNetV2, narrow, with samples to foretell on and others to measure on."""
    net = load(ModelRef("tests.nets.mobilenet_v2:net", args={"width": 0.25, "classes": 10}, shapes=IMAGE))
    samples = batches(net)
    return *planned(net, samples), samples, batches(net, 1, 4, seed=5)


IMAGE = {"x": (("N", 3, 32, 32), (1, 3, 32, 32))}


def test_what_is_foretold_ranks_as_what_is_measured(small: tuple[Model, Plan, Batches, Batches]) -> None:
    model, plan, samples, others = small
    chosen = options(plan, SOME)
    found, truth = sensitivity(model, TARGET, plan, chosen, samples), measured(model, TARGET, plan, chosen, others)
    assert found.keys() == truth.keys() == chosen.keys()
    assert all(list(found[name]) == chosen[name] for name in chosen)
    assert spearmanr(flat(found), flat(truth)).statistic >= 0.9
    assert 0.5 < np.median(flat(found) / flat(truth)) < 2


def test_fewer_bits_cost_more_in_all_and_float_nothing() -> None:
    model = residual().model("scores")
    samples = batches(model)
    model, plan = planned(model, samples)
    found = sensitivity(model, TARGET, plan, options(plan), samples)
    assert all(by_option[FLOAT] == 0 for by_option in found.values())
    assert min(flat(found)) >= 0
    weighted = [by_option for name, by_option in found.items() if plan.layers[name].weight]
    for order in (
        "fp32 int8/fp32 int6/fp32 int4/fp32 int3/fp32",
        "fp32 fp32/uint8 fp32/uint4",
        "int8/uint8 int4/uint8",
    ):
        sums = [sum(by_option[Option.parse(text)] for by_option in weighted) for text in order.split()]
        assert sums == sorted(sums)


def test_a_seed_gives_the_same_again() -> None:
    model = residual().model("scores")
    samples = batches(model)
    model, plan = planned(model, samples)
    first, again, other = (
        sensitivity(model, TARGET, plan, options(plan), samples, probes=Probes(seed=s)) for s in (3, 3, 4)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("method", [(), ("bias_correction",)])
@pytest.mark.parametrize("weight", ["int8", "int4"])
def test_what_is_measured_is_what_applying_that_layer_alone_does(method: tuple[str, ...], weight: str) -> None:
    model = residual().model("scores")
    samples = batches(model)
    model, plan = planned(model, samples)
    plan, option = replace(plan, methods=(*EXACT, *method)), Option(weight, "uint8")
    truth = measured(model, TARGET, plan, {name: [option] for name in plan.layers}, samples)
    wanted = torch.cat([model(batch)["scores"] for batch in samples])
    for name, layer in plan.layers.items():
        alone = layer_plan(layer, option)
        applied = apply_prepared(model, replace(plan, layers={name: alone}), TARGET, samples)
        noise = torch.cat([applied(batch)["scores"] for batch in samples]) - wanted
        assert truth[name][option] == pytest.approx(float(noise.square().sum() / wanted.square().sum()), rel=0.1)


def test_what_a_layer_without_a_plan_does_needs_no_range_while_its_activations_are_float() -> None:
    model = residual().model("scores")
    samples = batches(model)
    prepared, plan = planned(model, samples)
    bare, chosen = replace(plan, layers={}, ranges={}), {"conv3": [Option("int4", "fp32"), Option("bf16", "bf16")]}
    found = sensitivity(prepared, TARGET, bare, chosen, samples)
    assert 0 < found["conv3"][Option("bf16", "bf16")] < found["conv3"][Option("int4", "fp32")]
    with pytest.raises(ConvkitError, match="no range for tensor"):
        sensitivity(prepared, TARGET, bare, {"conv3": [Option("int8", "uint8")]}, samples)
    with pytest.raises(ConvkitError, match="no layer 'conv4'"):
        sensitivity(prepared, TARGET, plan, {"conv4": [FLOAT]}, samples)
    with pytest.raises(ConvkitError, match="runs no Clip"):
        (clip, *_) = (graphs.key(n) for n in graphs.computes(prepared.graph) if graphs.operator(n) == "Clip")
        sensitivity(prepared, TARGET, plan, {clip: [Option("fp32", "uint8")]}, samples)
    with pytest.raises(ConvkitError, match="needs samples"):
        sensitivity(prepared, TARGET, plan, chosen, [])


@pytest.mark.parametrize("kind", ["squares", "classes", "several"])
def test_with_labels_the_slope_counts(kind: str) -> None:
    """To labels a loss may fall: what is foretold has its sign and its size."""
    model = residual().model("scores")
    samples = batches(model, 4, 8)
    outputs = [model(batch)["scores"] for batch in samples]
    generator = torch.Generator().manual_seed(1)
    labels = {
        "squares": [z + torch.randn(z.shape, generator=generator) for z in outputs],
        "classes": [torch.randint(0, 5, z.shape[:1], generator=generator) for z in outputs],
        "several": [torch.rand(z.shape, generator=generator) < 0.4 for z in outputs],
    }[kind]
    model, plan = planned(model, samples)
    chosen = options(plan, [Option("int8", "uint8"), Option("int6", "fp32"), Option("int4", "fp32")])
    found = flat(sensitivity(model, TARGET, plan, chosen, samples, labels=labels, probes=Probes(16)))
    truth = flat(measured(model, TARGET, plan, chosen, samples, labels=labels))
    assert min(truth) < 0
    assert spearmanr(found, truth).statistic >= 0.9
    np.testing.assert_allclose(found, truth, rtol=0.3, atol=0.1 * np.abs(truth).max())


def test_labels_of_another_kind_of_output_are_refused() -> None:
    model = residual().model("scores")
    samples = batches(model)
    model, plan = planned(model, samples)
    for labels in (torch.full((4,), 5), torch.zeros(4, 6), torch.ones(4, 6, dtype=torch.bool)):
        with pytest.raises(ConvkitError):
            sensitivity(model, TARGET, plan, options(plan), samples, labels=[labels, labels])


def test_a_kernel_that_makes_parts_rounds_what_it_reads() -> None:
    net = Net(seed=2)
    left, right = net.split("Split", [net.conv("x", 8, 3)], 2, axis=1)
    net.head(net.op("Add", net.conv(left, 4), net.conv(right, 4)), classes=1)
    model = net.model("scores")
    samples = batches(model)
    model, plan = planned(model, samples)
    (name,) = (name for name in plan.layers if name.startswith("split"))
    plan = replace(plan, layers={**plan.layers, name: LayerPlan("uint4")})
    chosen = {name: [Option("fp32", "uint4")]}
    found = sensitivity(model, TARGET, plan, chosen, samples)
    assert flat(found) == pytest.approx(flat(measured(model, TARGET, plan, chosen, samples)), rel=1e-3)
    assert min(flat(found)) > 0
