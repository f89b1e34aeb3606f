"""Formats in shares: one whole share is that format, what lies between is between, and training decides."""

import math
from dataclasses import replace

import pytest
import torch

from convkit.compress.errors import ConvkitError
from convkit.compress.training import loop, mixing
from convkit.compress.training.choices import Choices
from convkit.compress.training.deciders import dnas
from convkit.compress.training.policy import Policy
from tests.compress.training.test_fliqs import FORMATS, SCHEDULE, choices, network, of_options, search
from tests.compress.training.test_quantized import aim, inputs, samples
from tests.compress.training.test_switching import switch
from tests.compress.training.test_trainable import off


@pytest.mark.parametrize("norms", [False, True])
def test_one_whole_share_is_that_format(norms: bool) -> None:
    found = Choices({name: network(name, norms=norms) for name in FORMATS}, mixing.share)
    if norms:
        found.begin_norms([inputs(16, 5)])
    found.graph.eval()
    given = inputs(16, 3)
    for turn in range(len(FORMATS)):
        chosen = {group: FORMATS[(at + turn) % 3] for at, group in enumerate(found.groups)}
        with torch.no_grad():
            found.mixed(chosen)
            wanted = found.graph(*given)[0]
            shares = {group: torch.eye(3)[FORMATS.index(label)] for group, label in chosen.items()}
            found.blended(shares)
            made = found.graph(*given)[0]
            assert off(made, wanted) < 1e-6
            found.blended({group: torch.full((3,), 1 / 3) for group in found.groups})
            assert off(found.graph(*given)[0], wanted) > 1e-3


def test_shares_of_floats_beside_others_are_numbers_too() -> None:
    names = ("e4m3/e4m3", "e2m1/e2m1")
    found = Choices({name: of_options(name, "onnxruntime-cpu") for name in names}, mixing.share)
    found.graph.eval()
    with torch.no_grad():
        found.at(names[1])
        wanted = found.graph(*inputs(16, 3))[0]
        found.blended({group: torch.tensor([0.0, 1.0]) for group in found.groups})
        assert off(found.graph(*inputs(16, 3))[0], wanted) < 1e-6


def test_shares_learn_from_what_is_lost_and_from_what_it_costs() -> None:
    found = choices()
    asked = search(found, 0.5)
    policy = Policy(asked.costs.labels, 10)
    shares = policy.shares(torch.Generator().manual_seed(0), 1.0)
    assert shares.detach().sum(1) == pytest.approx(1)
    found.blended(dict(zip(policy.decisions, shares, strict=True)))
    found.graph(*inputs(16, 3))[0].square().mean().backward()
    assert policy.logits.grad is not None
    assert bool((policy.logits.grad != 0).any(1).all())


def test_a_search_ends_decided_within_its_cost_and_nearer_to_float() -> None:
    found = choices()
    asked = search(found, 0.5)
    *_, (learner, state) = mixing.train(dnas.begun, found, asked, samples(), aim(), replace(SCHEDULE, epochs=30))
    cost = asked.costs.of(learner.chosen())
    assert asked.target - 2 <= cost <= asked.target
    assert learner.entropy() < math.log(3) / 2
    assert state.judged[-1] < state.judged[0]
    assert len(learner.updates.history) == 31


def test_what_was_killed_goes_on_to_the_same_bits() -> None:
    whole, first, again = choices(), choices(), choices()
    *_, (ended, straight) = mixing.train(dnas.begun, whole, search(whole), samples(), aim(), SCHEDULE)
    for learner, state in mixing.train(dnas.begun, first, search(first), samples(), aim(), SCHEDULE):
        kept = loop.packed(learner, state)
        if state.epoch == 6:
            break
    *_, (resumed, rest) = mixing.train(dnas.begun, again, search(again), samples(), aim(), SCHEDULE, kept=kept)
    assert rest.losses == straight.losses
    assert torch.equal(ended.policy.logits, resumed.policy.logits)


def test_an_operator_on_codes_is_told() -> None:
    found = switch("padded")
    with pytest.raises(ConvkitError, match="moves codes"):
        found.check_blends()
    choices().check_blends()
