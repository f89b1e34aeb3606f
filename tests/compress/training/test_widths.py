"""Widths that are searched beside formats: a masked network computes what the one without its channels does."""

import itertools
import random
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import pytest
import torch

from convkit.compress import graph as graphs
from convkit.compress import target as targets
from convkit.compress.apply import apply_prepared, prepare
from convkit.compress.errors import ConvkitError
from convkit.compress.model import Model
from convkit.compress.plan import Plan
from convkit.compress.search import space
from convkit.compress.training import loop, mixing
from convkit.compress.training.choices import Choices
from convkit.compress.training.deciders import fliqs
from convkit.compress.training.loop import Schedule
from convkit.compress.training.policy import Policy
from convkit.compress.training.trainable import Network
from convkit.compress.training.width_costs import ONLY, WidthCosts
from convkit.compress.training.widths import Widths
from tests.compress.network import EXACT, batches, quantized
from tests.compress.training.test_quantized import aim, samples
from tests.compress.training.test_trainable import NETS, moved
from tests.compress.training.test_trainable import plan_of as plan_of_ops
from tests.nets.small import loaded

FORMATS = ("int8", "int4", "int2")
BITS = {"int8": 8.0, "int4": 4.0, "int2": 2.0}
SHARES = (0.75, 0.5)


def plan_of(name: str, target: str) -> tuple[Model, Plan]:
    return plan_of_ops(name, target) if name in NETS else plan_of_real(name, target)


@cache
def plan_of_real(name: str, target: str) -> tuple[Model, Plan]:
    model = loaded(name)
    return model, quantized(model, targets.load(target))[1]


def network(
    name: str, formats: Mapping[str, str] | str, widths: Mapping[str, int] | None = None, target: str = "", **how: bool
) -> Network:
    target = target or "onnxruntime-cpu"
    model, plan = plan_of(name, target)
    layers = dict(plan.layers)
    for key, layer in plan.layers.items():
        if layer.weight:
            option, _ = space.precision(formats if isinstance(formats, str) else formats[key], targets.load(target))
            layers[key] = space.layer_plan(layer, option)
    prepared = prepare(model, EXACT, batches(model), widths=widths)
    return Network(apply_prepared(prepared, replace(plan, layers=layers), targets.load(target)), prepared, **how)


def choices(name: str = "residual", target: str = "", **how: bool) -> Choices:
    networks = {label: network(name, label, target=target, **how) for label in FORMATS}
    first = networks["int8"]
    found = Widths(first.exact, [layer.key for layer in first.layers], SHARES, batches(first.exact), 2)
    return Choices(networks, mixing.share, (), found)


def costs(found: Choices, name: str = "residual") -> WidthCosts:
    """Every layer has a product for each number of its weight."""
    assert found.channels is not None
    layers = {layer.key: layer.weight.weight.numel() for layer in found.first.layers}
    first, *_ = found.groups
    members = {name: group.layers for name, group in found.groups.items() if name != first}
    decided = [layer for own in members.values() for layer in own]
    each = {
        layer: {label: count * BITS[label] for label in FORMATS} if layer in decided else {ONLY: count * 8.0}
        for layer, count in layers.items()
    }
    return WidthCosts(each, members, {label: {} for label in FORMATS}, found.channels)


@pytest.mark.parametrize(
    ("name", "target", "families", "norms"),
    [
        ("residual", "onnxruntime-cpu", 2, False),
        ("residual", "onnxruntime-cpu", 2, True),
        ("residual", "openvino-cpu", 2, False),
        ("residual", "trt-rtx", 2, True),
        ("pooled", "onnxruntime-cpu", 1, False),
        ("unbiased", "onnxruntime-cpu", 1, False),
        ("upscaler", "openvino-cpu", 1, False),
        ("sequence", "onnxruntime-cpu", 1, False),
        ("resnet", "onnxruntime-cpu", 12, True),  # stages
        ("unet", "onnxruntime-cpu", 8, True),  # layers that stay in float beside those that do not
        ("unet", "openvino-cpu", 10, False),  # biases stand behind
        ("convnext", "onnxruntime-cpu", 5, False),  # norms over channels
        ("mobilenet_v3", "onnxruntime-cpu", 26, True),  # gates
        ("shufflenet", "openvino-cpu", 11, False),  # split and shuffled
    ],
)
def test_what_is_masked_is_what_is_cut(name: str, target: str, families: int, *, norms: bool) -> None:
    found = choices(name, target, norms=norms)
    assert found.channels is not None
    assert len(found.channels.sizes) == families
    given = tuple(batches(found.first.exact, 1, 8, seed=3)[0].values())
    if norms:
        found.begin_norms([given])
    moved(found, torch.Generator().manual_seed(1))
    for turn in range(3):
        chosen = {group: FORMATS[(at + turn) % 3] for at, group in enumerate(found.groups)}
        chosen |= {of: str(sizes[min(turn, len(sizes) - 1)]) for of, sizes in found.channels.sizes.items()}
        found.mixed(chosen)
        found.graph.eval()
        with torch.no_grad():
            wanted = found.graph(*given)[0]
        widths = found.channels.chosen(chosen)
        assert bool(widths) == (turn > 0)
        own = network(name, found.labels(chosen), widths, target, norms=norms)
        found.fill(own, chosen)
        with torch.no_grad():
            made = own.settle().graph(*given)[0]
        assert float((made - wanted).square().mean() / wanted.var()) <= 3e-4  # a code here and there is the next


def test_the_channels_that_stay_are_those_of_a_plan_with_these_widths() -> None:
    """Which is applied elsewhere, by the same samples; the first layer reads nothing that could be fitted anew."""
    found = choices()
    assert found.channels is not None
    chosen = {name: str(sizes[-1]) for name, sizes in found.channels.sizes.items()}
    model, _ = plan_of("residual", "onnxruntime-cpu")
    narrow = prepare(model, EXACT, batches(model), widths=found.channels.chosen(chosen))
    before, after = (
        next(node for node in graphs.computes(one.graph) if graphs.operator(node) == "Conv")
        for one in (found.first.exact, narrow)
    )
    whole, own = graphs.module(before), graphs.module(after)
    assert isinstance(whole, torch.nn.Conv2d)
    assert isinstance(own, torch.nn.Conv2d)
    made, _ = found.channels.places(chosen)[graphs.key(before)]
    assert made is not None
    assert len(own.weight) < len(whole.weight)
    assert torch.equal(own.weight, whole.weight[made])


def test_layers_that_are_not_in_training_keep_their_channels() -> None:
    first = network("residual", "int8")
    layers = [layer.key for layer in first.layers]
    every = Widths(first.exact, layers, SHARES, batches(first.exact), 2)
    few = Widths(first.exact, [key for key in layers if key != "scores"], SHARES, batches(first.exact), 2)
    assert set(few.sizes) < set(every.sizes)
    with pytest.raises(ConvkitError, match="no channels of which layers can have fewer"):
        Widths(first.exact, layers[:1], SHARES, batches(first.exact), 2)


def test_bit_operations_are_those_of_the_network_that_is_cut() -> None:
    """Each number of a weight is a product here, so those of the narrower network tell."""
    found, chance = choices(), random.Random(0)
    asked = costs(found)
    assert found.channels is not None
    for _ in range(6):
        chosen = {name: chance.choice(labels) for name, labels in asked.labels.items()}
        of = found.labels({name: label for name, label in chosen.items() if name in found.groups})
        own = network("residual", of, found.channels.chosen(chosen))
        assert asked.of(chosen) == sum(BITS[of[layer.key]] * layer.weight.weight.numel() for layer in own.layers)
        for (name, labels), row in zip(asked.labels.items(), asked.each(chosen), strict=True):
            wanted = [asked.of({**chosen, name: label}) for label in labels]
            assert row[: len(labels)] == pytest.approx(wanted, rel=1e-12)
            assert set(row[len(labels) :]) <= {asked.of(chosen)}


def test_the_choice_is_the_best_that_keeps_to_its_cost() -> None:
    """Beside all there are."""
    asked, chance = costs(choices()), random.Random(1)
    every = [dict(zip(asked.labels, labels, strict=True)) for labels in itertools.product(*asked.labels.values())]
    assert len(every) > 500
    least, most = asked.ends()
    assert (least, most) == (min(map(asked.of, every)), max(map(asked.of, every)))
    for share in (0.1, 0.4, 0.8):
        limit = least + share * (most - least)
        merits = {name: {label: chance.gauss(0, 3) for label in labels} for name, labels in asked.labels.items()}
        found = asked.best(merits, limit)
        assert found is not None
        near = [one for one in every if 0.97 * limit <= asked.of(one) <= limit]

        def worth(one: Mapping[str, str], merits: Mapping[str, Mapping[str, float]] = merits) -> float:
            return sum(merits[name][label] for name, label in one.items())

        assert worth(found) == pytest.approx(max(map(worth, near)))
        assert asked.of(found) <= limit
    assert asked.best(merits, 0.99 * least) is None


def test_a_policy_is_among_as_many_as_a_decision_has() -> None:
    policy = Policy({"a": FORMATS, "b": ("8", "4")}, 40)
    chance = torch.Generator().manual_seed(0)
    for uniform in (True, False):
        drawn = torch.stack([policy.drawn(chance, uniform=uniform) for _ in range(300)])
        assert [set(column.tolist()) for column in drawn.T] == [{0, 1, 2}, {0, 1}]
    for step in range(40):
        policy.seen(torch.tensor([0, 1]), 0.5)
        policy.learn(torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]), step / 40)
    assert [len(row) for row in policy.told()] == [3, 2]
    assert policy.told()[1][1] > 0.95
    assert list(policy.merits()["b"]) == ["8", "4"]


def test_a_search_ends_decided_within_its_cost_and_goes_on_where_it_was_killed() -> None:
    def searched(found: Choices) -> mixing.Search:
        asked = costs(found)
        least, most = asked.ends()
        return mixing.Search(asked, least + 0.3 * (most - least))

    schedule = Schedule(12, batch=16, rate=1e-3, decay=0.0)
    whole, first, again = choices(), choices(), choices()
    *_, (learner, straight) = mixing.train(fliqs.begun, whole, searched(whole), samples(), aim(), schedule)
    chosen = learner.chosen()
    assert set(chosen) == set(learner.search.costs.members)
    assert 0.9 * learner.search.target <= learner.search.costs.of(chosen) <= learner.search.target
    assert learner.policy.entropy() < 0.05
    assert straight.judged[-1] < straight.judged[0]
    for early, state in mixing.train(fliqs.begun, first, searched(first), samples(), aim(), schedule):
        kept = loop.packed(early, state)
        if state.epoch == 6:
            break
    *_, (resumed, rest) = mixing.train(fliqs.begun, again, searched(again), samples(), aim(), schedule, kept=kept)
    assert rest.losses == straight.losses
    assert resumed.chosen() == chosen
