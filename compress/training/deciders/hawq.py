"""HAWQ: formats are decided before training, by how curved the loss is and how far rounding moves the weights.

Dong et al., HAWQ-V2: Hessian Aware trace-Weighted Quantization (NeurIPS 2020): a layer in a format costs the mean of
its Hessian's diagonal times the squared distance of its weights to their rounded ones; an integer program chooses.
Traces are Hutchinson's, of the network in float. The network is trained in what was chosen, as any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from convkit.compress import graph as graphs
from convkit.compress.training import mixing
from convkit.compress.training.quantized import Aim
from convkit.compress.training.rounded import Weight
from convkit.compress.training.samples import length, taken

if TYPE_CHECKING:
    from convkit.compress.model import Model
    from convkit.compress.training.choices import Choices
    from convkit.compress.training.loop import Schedule
    from convkit.compress.training.mixing import Search
    from convkit.compress.training.samples import Samples

_DRAWS, _SAMPLES = 64, 1024
"""Of random signs in all, at least one for each batch, and samples that a trace is the mean over."""


def begun(choices: Choices, search: Search, samples: Samples, aim: Aim, schedule: Schedule) -> Decided:
    """The learner of `choices` in what is decided by their Hessians."""
    curved = traces(choices.first.exact, aim, schedule.batch, search.seed)
    learner = Decided(
        choices, search, aim, mixing.Updates(choices, schedule, mixing.steps(samples, schedule)), schedule
    )
    learner.decide(search.best(merits(choices, search.costs.members, curved)))
    return learner


class Decided(mixing.Learner):
    """A network in training, in formats that stay."""

    _decided: dict[str, str]

    def decide(self, chosen: Mapping[str, str]) -> None:
        """Be in these from here on."""
        self._decided = dict(chosen)
        self._choices.mixed(self._decided)

    def chosen(self) -> dict[str, str]:
        """As it was decided."""
        return self._decided


def merits(
    choices: Choices, members: Mapping[str, Sequence[str]], curved: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """What each decision's options lose as weights are now, less than nothing; `curved` are the traces of layers."""
    lost: dict[str, dict[str, float]] = {}
    for label, network in choices.networks.items():
        layers = {layer.key: layer.weight for layer in network.layers}
        for name, own in members.items():
            lost.setdefault(name, {})[label] = -sum(curved[key] * _moved(layers[key]) for key in own)
    return lost


def _moved(weight: nn.Module) -> float:
    """The squared distance of the weight to what it is rounded to."""
    assert isinstance(weight, Weight)  # what is searched has scales  # noqa: S101
    with torch.no_grad():
        return float((weight() - weight.weight).square().sum())


def traces(exact: Model, aim: Aim, batch: int, seed: int) -> dict[str, float]:
    """Of each layer of the network in float, the mean of its Hessian's diagonal, of the aim on what is held back."""
    layers = {graphs.key(node): graphs.module(node) for node in exact.graph.graph.nodes if node.op == "call_module"}
    found = {key: getattr(module, "weight", None) for key, module in layers.items()}
    weights = {key: weight for key, weight in found.items() if isinstance(weight, Tensor)}
    chance = torch.Generator().manual_seed(seed)
    sums, seen = dict.fromkeys(weights, 0.0), 0
    wanted = {key: weight.requires_grad for key, weight in weights.items()}
    try:
        for weight in weights.values():
            weight.requires_grad_()
        count = length(aim.held)
        most = max(1, min(count, _SAMPLES) // batch) * batch if count >= batch else count
        rows = torch.arange(most) * count // most  # neighbours are often of one class
        starts = range(0, most, batch)
        draws = max(1, _DRAWS // len(starts))
        for at in starts:
            inputs = taken(aim.held, rows[at : at + batch])
            labels = None if aim.held_labels is None else aim.held_labels[rows[at : at + batch]]
            loss = aim.of(exact.graph(*inputs), inputs, labels)
            own = torch.autograd.grad(loss, list(weights.values()), create_graph=True, materialize_grads=True)
            for _ in range(draws):
                for key, along in zip(weights, _along(own, list(weights.values()), chance), strict=True):
                    sums[key] += along * length(inputs)
            seen += length(inputs)
    finally:
        for key, weight in weights.items():
            weight.requires_grad_(wanted[key])
    return {key: max(total, 0.0) / (seen * draws * weights[key].numel()) for key, total in sums.items()}


def _along(gradients: Sequence[Tensor], weights: Sequence[Tensor], chance: torch.Generator) -> list[float]:
    """v H v of each weight for random signs v: on average its Hessian's trace, since signs of others cancel."""
    signs = [torch.randint(0, 2, weight.shape, generator=chance).to(weight.dtype) * 2 - 1 for weight in weights]
    found = torch.autograd.grad(gradients, weights, signs, retain_graph=True, materialize_grads=True)
    return [float((sign * one).sum()) for sign, one in zip(signs, found, strict=True)]


PART = begun
