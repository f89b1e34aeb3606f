"""Formats that are decided before training: traces are those of the Hessian, and what is curved keeps its bits."""

import pytest
import torch
from torch import Tensor

from convkit.compress import graph as graphs
from convkit.compress.training import loop, mixing
from convkit.compress.training.deciders import hawq
from convkit.compress.training.rounded import Weight
from tests.compress.training.test_fliqs import SCHEDULE, choices, search
from tests.compress.training.test_quantized import aim, samples


def test_traces_are_those_of_the_whole_hessian() -> None:
    """Beside torch's own second derivatives, number by number, of the last layer and of one within."""
    exact, own = choices().first.exact, aim()
    found = hawq.traces(exact, own, SCHEDULE.batch, seed=0)
    modules = {graphs.key(node): graphs.module(node) for node in exact.graph.graph.nodes if node.op == "call_module"}
    weights = {key: module.weight for key, module in modules.items() if key in found and module is not None}
    for key in (min(weights, key=lambda name: weights[name].numel()), list(weights)[-1]):
        weight = weights[key]
        assert isinstance(weight, torch.nn.Parameter)

        def loss(value: Tensor, module: torch.nn.Module | None = modules[key]) -> Tensor:
            assert module is not None
            kept = module.weight
            del module.weight
            try:
                module.weight = value
                return own.of(exact.graph(*own.held), own.held, own.held_labels)
            finally:
                del module.weight
                module.weight = kept

        hessian = torch.autograd.functional.hessian(loss, weight.detach())
        size = weight.numel()
        exactly = float(hessian.reshape(size, size).diagonal().mean())
        assert found[key] == pytest.approx(exactly, rel=0.25)  # signs are drawn


def test_what_is_curved_and_moves_far_loses_most() -> None:
    made = choices()
    asked = search(made)
    curved = hawq.traces(made.first.exact, aim(), SCHEDULE.batch, asked.seed)
    lost = hawq.merits(made, asked.costs.members, curved)
    for own in lost.values():
        assert 0 >= own["int8"] > own["int4"] > own["int2"]
    layers = {layer.key: layer.weight for layer in made.networks["int4"].layers}
    for name, members in asked.costs.members.items():
        by_hand = 0.0
        for key in members:
            weight = layers[key]
            assert isinstance(weight, Weight)
            by_hand += curved[key] * float((weight() - weight.weight).detach().double().square().sum())
        assert lost[name]["int4"] == pytest.approx(-by_hand, rel=1e-4)


def test_a_network_is_trained_in_what_was_decided_and_goes_on_to_the_same_bits() -> None:
    whole, first, again = choices(), choices(), choices()
    *_, (ended, straight) = mixing.train(hawq.begun, whole, search(whole), samples(), aim(), SCHEDULE)
    asked = search(whole)
    assert asked.costs.of(ended.chosen()) <= asked.target
    assert min(straight.judged) < straight.judged[0]
    assert ended.entropy() == 0
    for learner, state in mixing.train(hawq.begun, first, search(first), samples(), aim(), SCHEDULE):
        kept = loop.packed(learner, state)
        if state.epoch == 6:
            break
    *_, (resumed, rest) = mixing.train(hawq.begun, again, search(again), samples(), aim(), SCHEDULE, kept=kept)
    assert rest.losses == straight.losses
    assert resumed.chosen() == ended.chosen()
