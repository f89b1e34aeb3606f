"""One network at many widths: all of them hang on one set of weights, and each file is the stored one shifted."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from convkit.compress import stored
from convkit.compress import target as targets
from convkit.compress.apply import apply_prepared, prepare
from convkit.compress.format import load
from convkit.compress.model import Model
from convkit.compress.training import loop, switching
from convkit.compress.training.deciders import hawq
from convkit.compress.training.loop import Schedule
from convkit.compress.training.rounded import Scale, straight
from convkit.compress.training.shifted import shift, shifted
from convkit.compress.training.switching import Switch
from convkit.compress.training.trainable import Network
from tests.compress.network import EXACT
from tests.compress.training.test_quantized import aim, inputs, samples
from tests.compress.training.test_trainable import moved, off, plan_of

WIDTHS = (8, 6, 4, 2)
SCHEDULE = Schedule(6, batch=16, rate=1e-3, decay=0.0)


def switch(name: str = "residual", target: str = "onnxruntime-cpu", **how: bool) -> Switch:
    model, plan = plan_of(name, target)
    weighted = {key: layer for key, layer in plan.layers.items() if layer.weight}
    first, *_, last = weighted
    prepared, networks = prepare(model, EXACT), {}
    for bits in WIDTHS:
        layers = {
            key: replace(layer, weight="int8" if key in (first, last) else f"int{bits}", weight_range="mse")
            for key, layer in weighted.items()
        }
        own = replace(plan, layers={**plan.layers, **layers})
        networks[bits] = Network(apply_prepared(prepared, own, targets.load(target)), prepared, **how)
    return Switch(networks)


def codes(model: Model) -> dict[str, np.ndarray]:
    found = (stored.weight(node) for node in model.graph.graph.nodes if "layer" in node.meta)
    return {str(one.node.meta["layer"]): one.codes.numpy() for one in found if one is not None}


def test_ties_of_the_second_rounding_go_up_and_shifting_codes_says_the_same() -> None:
    wide, scale, zero = torch.arange(-128, 128.0), torch.ones(()), torch.zeros(())
    assert shift(np.array([-8, 8, -24, 24, -9, 7]), 4, -8, 7).tolist() == [0, 1, -1, 2, -1, 0]
    for bits in WIDTHS[1:]:
        number = shifted(bits, 8, "int8")
        once = number.codes(wide, scale * 2 ** (8 - bits), zero).numpy()
        assert once.tolist() == shift(wide.numpy().astype(np.int8), 8 - bits, number.low, number.high).tolist()
        oracle = [min(number.high, max(number.low, int(np.floor(c / 2 ** (8 - bits) + 0.5)))) for c in wide.tolist()]
        assert once.tolist() == oracle


def test_numbers_are_rounded_twice() -> None:
    """7.6 is 8 in eight bits and 1 in four, though nearer to 0 of these."""
    assert float(shifted(4, 8, "int8").codes(torch.tensor(7.6), torch.tensor(16.0), torch.zeros(()))) == 1.0
    assert float(load("int4").codes(torch.tensor(7.6), torch.tensor(16.0), torch.zeros(()))) == 0.0


def test_the_gradient_of_a_scale_is_that_of_what_is_computed() -> None:
    """Where nothing is clipped: the codes less what they stand for, in steps (LSQ)."""
    x, log = torch.linspace(-60, 60, 41), torch.zeros((), requires_grad=True)
    number, scale = shifted(4, 8, "int8"), 16 * torch.exp2(log)
    made = straight(number, x, scale, torch.zeros(())) * scale
    made.sum().backward()
    wanted = (number.nearest(x / 16) - x / 16).sum() * 16 * np.log(2)
    assert log.grad is not None
    assert float(log.grad) == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "target"), [("residual", "onnxruntime-cpu"), ("volume", "onnxruntime-cpu"), ("residual", "openvino-cpu")]
)
def test_what_is_stored_is_shifted_and_computes_what_was_learnt(name: str, target: str) -> None:
    found = switch(name, target)
    moved(found, torch.Generator().manual_seed(1))
    given, learnt = inputs(16, 3) if name == "residual" else _inputs(name, target), {}
    for bits in WIDTHS:
        found.at(str(bits))
        found.graph.eval()
        with torch.no_grad():
            learnt[bits] = found.graph(*given)[0]
    models = found.settle()
    for bits, model in models.items():
        with torch.no_grad():
            assert off(model.graph(*given)[0], learnt[bits]) < 1e-5
    _check_shifted(models)


def _inputs(name: str, target: str) -> tuple[torch.Tensor, ...]:
    from tests.compress.training.test_trainable import inputs as of

    return of(plan_of(name, target)[0])


def _check_shifted(models: Mapping[int, Model]) -> None:
    whole = codes(models[8])
    first, *between, last = whole
    for bits in WIDTHS[1:]:
        narrow = codes(models[bits])
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        assert all((narrow[key] == whole[key]).all() for key in (first, last))
        assert all((narrow[key] == shift(whole[key], 8 - bits, low, high)).all() for key in between)


@pytest.mark.parametrize("norms", [False, True])
def test_every_width_learns_from_one_training(norms: bool) -> None:
    found = switch(norms=norms)
    if norms:
        found.begin_norms([inputs(96, 0)])
    learner = switching.SwitchLearner(found, aim(), switching.Adaptive(found, SCHEDULE, 100), 16)
    before = learner.judged()
    for learner, state in switching.train(found, samples(), aim(), SCHEDULE):  # noqa: B007
        pass
    after = learner.judged()
    assert sum(after.values()) / 4 == pytest.approx(min(state.judged), rel=1e-5)
    assert after[4] < 0.7 * before[4]
    assert after[2] < 0.7 * before[2]
    models = found.settle()
    _check_shifted(models)
    held = inputs(32, 1)
    for bits, model in models.items():
        found.at(str(bits))
        found.graph.eval()
        with torch.no_grad():
            # What a norm leaves as a bias is rounded to codes after training, that of a bias while it is learnt.
            assert off(model.graph(*held)[0], found.graph(*held)[0]) < (2e-2 if norms else 1e-4)


def test_what_was_killed_goes_on_to_the_same_bits() -> None:
    whole, first, again = switch(), switch(), switch()
    *_, (_, straight_on) = switching.train(whole, samples(), aim(), SCHEDULE)
    for learner, state in switching.train(first, samples(), aim(), SCHEDULE):
        kept = loop.packed(learner, state)
        if state.epoch == 3:
            break
    *_, (_, rest) = switching.train(again, samples(), aim(), SCHEDULE, kept=kept)
    assert rest.judged == straight_on.judged
    for bits, model in whole.settle().items():
        other = again.settle()[bits].graph.state_dict()
        assert all(torch.equal(one, other[name]) for name, one in model.graph.state_dict().items())


def test_a_scale_that_a_bias_needs_larger_is_so_at_every_width() -> None:
    found = switch()
    with torch.no_grad():
        for layer in found.networks["8"].layers:
            if layer.bias is not None:
                layer.bias.mul_(1e9)
    _check_shifted(found.settle())


def test_scales_learn_slower_of_fewer_bits_and_where_gradients_are_steep() -> None:
    assert [switching.eta(less) for less in (0, 1, 2, 4, 6)] == pytest.approx([1, 0.5, 0.1, 0.01, 0.001])
    found = switch()
    updates = switching.Adaptive(found, Schedule(1, rate=1e-3, decay=0.0), 10)
    _, shared, alone = found.parameters()
    assert not {id(one) for one in shared} & {id(one) for own in alone.values() for one in own}
    assert len({len(own) for own in alone.values()}) == 1

    def moved(bits: int, steep: float) -> float:
        before = [one.detach().clone() for one in alone[bits]]
        loss = torch.stack([one.sum() for one in (*shared, *alone[bits])]).sum() * steep
        updates.update_at(bits, [loss])
        return max(float((one.detach() - old).abs().max()) for one, old in zip(alone[bits], before, strict=True))

    gentle = moved(8, 1e-3)
    assert gentle > 0
    assert moved(4, 1e-3) < 0.2 * gentle
    assert moved(8, 2.0) == 0


def test_tensors_of_equal_ranges_are_learnt_apart_but_where_numbers_only_move() -> None:
    """ReLU6 ends all its tensors at one number."""
    model, plan = plan_of("residual", "onnxruntime-cpu")
    same = replace(plan, ranges=dict.fromkeys(plan.ranges, next(iter(plan.ranges.values()))))
    prepared = prepare(model, EXACT)
    network = Network(apply_prepared(prepared, same, targets.load("onnxruntime-cpu")), prepared)
    rounds = {name: read.rounds for name, read in network.reads().items()}
    assert len(rounds) == 8
    shared = [name for name in rounds if sum(rounds[name] is one for one in rounds.values()) > 1]
    assert len(shared) == 2  # around the flattening
    assert len({id(layer.reads) for layer in network.layers}) == len(network.layers)


def test_each_width_has_scales_of_its_own_for_activations() -> None:
    found = switch()
    _, _, alone = found.parameters()
    rounds = {int(bits): [*network.roundings()] for bits, network in found.networks.items()}
    for bits, own in alone.items():
        held = {id(one.scale.log) for one in rounds[bits] if isinstance(one.scale, Scale)}
        assert held == {id(one) for one in own}


def test_what_is_curved_draws_more_bits() -> None:
    members = {"flat": ("a", "b"), "steep": ("c",)}
    draws = switching.Draws(WIDTHS, members, {"a": 0.1, "b": 0.3, "c": 2.0}, seed=0)
    drawn = [draws.at(place / 1000) for place in range(4000)]
    for name, wanted in (("flat", [1, 1, 1, 1]), ("steep", WIDTHS)):
        shares = [sum(one[name] == bits for one in drawn) / len(drawn) for bits in WIDTHS]
        assert shares == pytest.approx([one / sum(wanted) for one in wanted], abs=0.03)
    assert draws.at(1.5) == draws.at(1.5)


def test_a_step_in_drawn_widths_is_one_more_and_goes_on_to_the_same_bits() -> None:
    def learnt(found: Switch, epochs: int, **how: Any) -> tuple[Any, Any]:
        members = found.members()
        curved = hawq.traces(found.first.exact, aim(), SCHEDULE.batch, 0)
        draws = switching.Draws(found.widths, members, curved, 0)
        training = switching.train(found, samples(), aim(), SCHEDULE, draws=draws, **how)
        return next(one for one in training if one[1].epoch == epochs)

    whole, first, again, plain = switch(), switch(), switch(), switch()
    _, straight = learnt(whole, SCHEDULE.epochs)
    kept = loop.packed(*learnt(first, 3))
    _, rest = learnt(again, SCHEDULE.epochs, kept=kept)
    assert rest.judged == straight.judged
    *_, (_, without) = switching.train(plain, samples(), aim(), SCHEDULE)
    assert without.judged != straight.judged


def test_scales_of_drawn_widths_alone_learn() -> None:
    found = switch()
    updates = switching.Adaptive(found, Schedule(1, rate=1e-3, decay=0.0), 10)
    _, _, alone = found.parameters()
    before = {bits: [one.detach().clone() for one in own] for bits, own in alone.items()}
    loss = torch.stack([one.sum() for bits in (8, 4) for one in alone[bits]]).sum() * 1e-3
    updates.update_mixed([8, 4, 4], [loss])
    far = {
        bits: max(float((one.detach() - old).abs().max()) for one, old in zip(own, before[bits], strict=True))
        for bits, own in alone.items()
    }
    assert far[6] == far[2] == 0
    assert 0 < far[4] < 0.2 * far[8]
