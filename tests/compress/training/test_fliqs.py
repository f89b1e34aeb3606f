"""Formats that are searched while they are trained: what the policy comes to, and that the network computes it."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from convkit.compress import target as targets
from convkit.compress.apply import apply_prepared, prepare
from convkit.compress.errors import ConvkitError
from convkit.compress.option import Option
from convkit.compress.search import space
from convkit.compress.search.problem import Cost
from convkit.compress.training import costs, loop, mixing
from convkit.compress.training.choices import Choices
from convkit.compress.training.costs import Costs
from convkit.compress.training.deciders import fliqs
from convkit.compress.training.loop import Schedule
from convkit.compress.training.policy import Policy
from convkit.compress.training.trainable import Network
from tests.compress.network import EXACT
from tests.compress.training.test_quantized import aim, inputs, samples
from tests.compress.training.test_trainable import moved, off, plan_of

FORMATS = ("int8", "int4", "int2")
SCHEDULE = Schedule(12, batch=16, rate=1e-3, decay=0.0)
BITS = {"int8": 8.0, "int4": 4.0, "int2": 2.0}


def network(formats: dict[str, str] | str, **how: bool) -> Network:
    model, plan = plan_of("residual", "onnxruntime-cpu")
    layers = {
        key: replace(layer, weight=formats if isinstance(formats, str) else formats[key], weight_range="mse")
        for key, layer in plan.layers.items()
        if layer.weight
    }
    prepared = prepare(model, EXACT)
    own = apply_prepared(prepared, replace(plan, layers={**plan.layers, **layers}), targets.load("onnxruntime-cpu"))
    return Network(own, prepared, **how)


def of_options(formats: dict[str, str] | str, target: str, **how: bool) -> Network:
    """In the Option that each name stands for on the target."""
    model, plan = plan_of("residual", target)
    layers = {} if target == "trt-rtx" else dict(plan.layers)  # what has no weight stays as it is
    for key, layer in plan.layers.items():
        if layer.weight:
            option, _ = space.precision(formats if isinstance(formats, str) else formats[key], targets.load(target))
            layers[key] = space.layer_plan(layer, option)
    prepared = prepare(model, EXACT)
    own = apply_prepared(prepared, replace(plan, layers=layers), targets.load(target))
    return Network(own, prepared, **how)


def choices(together: Sequence[Sequence[str]] = ()) -> Choices:
    return Choices({name: network(name) for name in FORMATS}, mixing.share, together)


def options(found: Choices) -> dict[str, dict[str, Option]]:
    layers = [layer for group in found.groups.values() for layer in group.layers]
    return {name: {layer: Option(name, "uint8") for layer in layers} for name in FORMATS}


def search(found: Choices, share: float = 0.5) -> mixing.Search:
    """Every layer costs its bits; `share` of eight in all."""
    members = {name: group.layers for name, group in found.groups.items()}
    own = options(found)
    layers = own["int8"]
    each = {layer: {own[name][layer]: Cost(bops=BITS[name]) for name in FORMATS} for layer in layers}
    known = Costs(costs.problem(each, members, Cost()), "bops", members, own)
    return mixing.Search(known, share * 8 * len(layers))


def test_a_policy_finds_what_is_worth_most_within_what_it_may_cost_and_decides() -> None:
    """Of eight layers the first two suffer from few bits, the others do not; a fourth of all bits is to go."""
    steps, bits = 1500, torch.tensor([8.0, 4.0, 2.0])
    found, chance = (
        Policy(dict.fromkeys([f"layer{at}" for at in range(8)], FORMATS), steps),
        torch.Generator().manual_seed(0),
    )
    assert found.entropy() == pytest.approx(math.log(3))
    for step in range(steps):
        places = found.drawn(chance, uniform=step < steps // 4)
        found.seen(places, 1 - float((places[:2] / 4).sum()) + 0.02 * float(torch.randn((), generator=chance)))
        if step >= steps // 4:
            own = bits[places]
            each = own.sum() - own[:, None] + bits[None, :]
            found.learn((1 - each / 48).abs(), (step / steps - 0.25) / 0.75)
    chosen = [row.index(max(row)) for row in found.told()]
    assert chosen[:2] == [0, 0]
    assert abs(float(bits[chosen].sum()) / 48 - 1) <= 0.05
    assert found.entropy() < 0.05 * math.log(3)


def test_the_choice_is_the_best_that_keeps_to_its_cost() -> None:
    found = choices()
    asked = search(found)
    names = list(found.groups)
    sure = {name: {"int8": 9.0, "int4": 1.0, "int2": 0.0} for name in names}
    assert asked.costs.best(sure, 1e9) == dict.fromkeys(names, "int8")
    unsure = sure | {names[-1]: {"int8": 0.4, "int4": 0.35, "int2": 0.25}}
    whole = asked.costs.of(dict.fromkeys(names, "int8"))
    assert asked.costs.best(unsure, whole - 4) == dict.fromkeys(names, "int8") | {names[-1]: "int4"}
    assert asked.costs.best(sure, 1.0) is None
    small = {name: {"int8": 0.0, "int4": 1.0, "int2": 9.0} for name in names}
    found_near = asked.costs.best(small, whole / 2)  # all in two bits would have most merit
    assert found_near is not None
    assert 0.97 * whole / 2 <= asked.costs.of(found_near) <= whole / 2
    assert asked.costs.best(small, whole / 4 + 1) == dict.fromkeys(names, "int2")  # nothing is as near
    assert asked.costs.ends() == (whole / 4, whole)


def test_of_options_as_unlikely_the_better_one_has_more_merit() -> None:
    policy = Policy({"a": FORMATS}, 10)
    for _ in range(3):
        for place, quality in enumerate((0.9, 0.8, 0.3)):
            policy.seen(torch.tensor([place]), quality)
    merits = list(policy.merits()["a"].values())
    assert merits == sorted(merits, reverse=True)
    with torch.no_grad():
        policy.logits[0, 2] += 40
    merits = policy.merits()["a"]
    assert max(merits, key=lambda label: merits[label]) == FORMATS[2]


def test_costs_of_one_decision_at_a_time_are_those_of_the_whole_choice() -> None:
    found = choices()
    known = search(found).costs
    chosen = {name: FORMATS[at % 3] for at, name in enumerate(found.groups)}
    for name, row in zip(found.groups, known.each(chosen), strict=True):
        assert row == [known.of(chosen | {name: label}) for label in FORMATS]


def test_layers_that_stand_together_are_decided_as_one() -> None:
    alone = choices()
    layers = sorted(layer for group in alone.groups.values() for layer in group.layers)
    found = choices([layers])
    assert len(alone.groups) > 1
    (group,) = found.groups.values()
    assert sorted(group.layers) == layers
    found.mixed({next(iter(found.groups)): "int2"})
    other = choices()
    other.at("int2")
    found.graph.eval(), other.graph.eval()
    with torch.no_grad():
        assert torch.equal(found.graph(*inputs(4, 3))[0], other.graph(*inputs(4, 3))[0])


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize(
    ("target", "formats"),
    [
        ("onnxruntime-cpu", FORMATS),
        ("onnxruntime-cpu", ("e4m3/e4m3", "e3m2/e3m2", "e2m1/e2m1")),
        ("openvino-cpu", ("int8", "int3")),
        ("trt-rtx", ("int8", "fp8_e4m3")),  # integers and floats
    ],
)
def test_mixed_formats_compute_what_a_network_of_them_is_settled_to(
    target: str, formats: tuple[str, ...], norms: bool
) -> None:
    networks = {name: of_options(name, target, norms=norms) for name in formats}
    found = Choices(networks, mixing.share)
    if norms:
        found.begin_norms([inputs(16, 5)])
    moved(found, torch.Generator().manual_seed(1))
    given = inputs(16, 3)
    for turn in range(len(formats)):
        chosen = {group: formats[(at + turn) % len(formats)] for at, group in enumerate(found.groups)}
        found.mixed(chosen)
        found.graph.eval()
        with torch.no_grad():
            wanted = found.graph(*given)[0]
        own = of_options(found.labels(chosen), target, norms=norms)
        found.fill(own, chosen)
        model = own.settle()
        with torch.no_grad():
            made = model.graph(*given)[0]
        *most, worst = sorted(off(row, other) for row, other in zip(made, wanted, strict=True))
        assert most[-1] < 1e-5
        assert worst < 1e-2  # on some processors a sum falls to the other side of a code's edge


def test_networks_that_differ_in_more_than_rounding_are_told() -> None:
    """A ReLU is the zero of unsigned codes, and a node beside floats."""
    with pytest.raises(ConvkitError, match="int8 and fp8_e4m3 are computed by unlike networks"):
        Choices({name: of_options(name, "onnxruntime-cpu") for name in ("int8", "fp8_e4m3")}, mixing.share)


def test_a_search_ends_decided_within_its_cost_and_nearer_to_float() -> None:
    found = choices()
    asked = search(found, 0.5)
    for learner, state in mixing.train(fliqs.begun, found, asked, samples(), aim(), replace(SCHEDULE, epochs=40)):  # noqa: B007
        pass
    assert learner.policy.entropy() < 0.05 * math.log(3)
    cost = asked.costs.of(learner.chosen())
    assert cost <= asked.target
    assert asked.target - cost <= 2  # one layer's step from four bits to two
    assert state.judged[-1] < state.judged[0]
    assert len(learner.updates.history) == 41


def test_what_was_killed_goes_on_to_the_same_bits() -> None:
    whole, first, again = choices(), choices(), choices()
    *_, (ended, straight) = mixing.train(fliqs.begun, whole, search(whole), samples(), aim(), SCHEDULE)
    for learner, state in mixing.train(fliqs.begun, first, search(first), samples(), aim(), SCHEDULE):
        kept = loop.packed(learner, state)
        if state.epoch == 6:
            break
    *_, (resumed, rest) = mixing.train(fliqs.begun, again, search(again), samples(), aim(), SCHEDULE, kept=kept)
    assert rest.losses == straight.losses
    assert resumed.updates.history == ended.updates.history
    assert torch.equal(ended.policy.logits, resumed.policy.logits)
    assert resumed.chosen() == ended.chosen()


def test_a_step_of_the_search_keeps_what_a_step_in_one_format_keeps() -> None:
    """One format runs at a time, whatever the number of them."""

    def kept(found: Choices | Network) -> int:
        held: dict[int, int] = {}

        def seen(tensor: torch.Tensor) -> torch.Tensor:
            held[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor):
            found.graph(*inputs(16, 3))
        return sum(held.values())

    mixed = choices()
    mixed.mixed({group: FORMATS[at % 3] for at, group in enumerate(mixed.groups)})
    assert kept(mixed) <= 1.05 * kept(network("int8"))


def test_what_a_loss_is_worth_falls_from_two_to_none_and_is_one_at_none() -> None:
    """Also where a user's own loss is less than none, at -1 as anywhere."""
    losses = [-math.inf, -1e6, -100.0, -2.0, -1.0, -0.5, -1e-6, 0.0, 1e-6, 0.5, 1.0, 100.0, 1e6, math.inf]
    worth = [fliqs.quality(loss) for loss in losses]
    assert fliqs.quality(0.0) == 1
    assert all(one > other for one, other in itertools.pairwise(worth))
    assert (worth[0], worth[-1]) == (2, 0)
    assert fliqs.quality(-1e-6) == pytest.approx(fliqs.quality(1e-6), abs=3e-6)
    assert fliqs.quality(3.0) == 0.25
