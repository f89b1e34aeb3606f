"""Quantization-aware training: by labels, by what the float network makes, or by both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from convkit.compress import graph as graphs
from convkit.compress.errors import ConvkitError
from convkit.compress.training import loop
from convkit.compress.training.crew import Crew
from convkit.compress.training.cycle import Cycle
from convkit.compress.training.samples import length, taken
from convkit.compress.weights import FORMAT

if TYPE_CHECKING:
    from convkit.compress.training.augment import Augment
    from convkit.compress.training.distilled import Target
    from convkit.compress.training.loop import Schedule, State
    from convkit.compress.training.samples import Inputs, Samples
    from convkit.compress.training.supervised import Loss
    from convkit.compress.training.trainable import Network

SCALES = 3.0
"""Times the rate of weights: scales are learned in the log, a hundredth of which is a hundredth of the scale."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What is to be learnt: the teacher's outputs, as much as `teaches` says (0 to 1), and labels by `loss`.

    `held` are inputs that are not learnt from, with labels where there are any; the epoch nearest to the aim there is
    kept.
    """

    target: Target | None
    teaches: float
    loss: Loss | None
    held: Inputs
    held_labels: Tensor | None

    def of(self, made: tuple[Tensor, ...], inputs: Inputs, labels: Tensor | None) -> Tensor:
        """What is to be least, where a network makes `made` of a batch."""
        parts = []
        if self.target is not None:
            parts.append(self.teaches * self.target.loss(made, inputs))
        if self.loss is not None:
            if labels is None:
                raise ConvkitError("a batch has no labels to learn from", hint="give them, or --teach 1")
            parts.append((1 - self.teaches) * self.loss(made[0], labels))
        return torch.stack(parts).sum()


def train(
    network: Network,
    samples: Samples,
    aim: Aim,
    schedule: Schedule,
    *,
    augment: Augment | None = None,
    kept: tuple[Mapping[str, Tensor], Mapping[str, object]] | None = None,
    shards: int = 1,
    crew: Crew | None = None,
) -> Iterator[tuple[QuantizedLearner, State]]:
    """Train on `samples`; the state after every epoch, to be kept with `loop.packed`. What was `kept` goes on.

    `shards`: parts of a batch that are run each for itself, on as many processes as the `crew` has, to one result.
    Raises ConvkitError where these do not fit, or the loss is no number any more.
    """
    crew = crew or Crew()
    crew.check(schedule.batch, shards)
    own, scales = network.parameters()
    least = max(LEAST, shards)  # each part of a batch has a sample
    total = schedule.epochs * samples.steps(schedule.batch, least)
    updates = Cycle([(own, 1, 1), (scales, SCALES, 0)], schedule, total, network.units())
    learner = QuantizedLearner(network, aim, updates, schedule.batch, (shards, crew))
    state = None if kept is None else loop.unpacked(learner, *kept)
    for now in loop.run(learner, samples, schedule, least=least, augment=augment, state=state):
        yield learner, now


LEAST = 2


class QuantizedLearner:
    """A network in training, and what it is to come to."""

    def __init__(self, network: Network, aim: Aim, updates: Cycle, batch: int, shards: tuple[int, Crew]) -> None:
        self.updates, self._network, self._aim, self._batch = updates, network, aim, batch
        self._shards, self._crew = shards

    def weights(self) -> Mapping[str, Tensor]:
        """Weights, scales, and statistics of norms."""
        return self._network.graph.state_dict(keep_vars=True)

    def step(self, inputs: Inputs, labels: Tensor | None, at: float) -> float:
        """By the gradient of the aim."""
        del at
        count, parts = length(inputs), self._shards
        if count < parts:
            raise ConvkitError(
                f"a batch of {count} has no {parts} parts", hint="give fewer --shards, or larger batches"
            )
        losses = (
            self.loss(taken(inputs, slice(at, None, parts)), None if labels is None else labels[at::parts])
            * (len(range(at, count, parts)) / count)
            for at in self._crew.shards(parts)
        )
        return self.updates.update(losses, self._crew)

    def judge(self) -> float:
        """The aim on what is held back."""
        self._network.graph.eval()
        held, total = self._aim.held, 0.0
        for at in range(0, length(held), self._batch):
            part = taken(held, slice(at, at + self._batch))
            labels = None if self._aim.held_labels is None else self._aim.held_labels[at : at + self._batch]
            with torch.no_grad():
                total += float(self.loss(part, labels)) * length(part)
        self._network.train()
        return total / length(held)

    def broken(self, inputs: Inputs) -> str:
        """The first layer whose output is no number, and its format."""
        return _first_broken(self._network.graph, inputs)

    def loss(self, inputs: Inputs, labels: Tensor | None) -> Tensor:
        """What is to be least, of a batch."""
        return self._aim.of(self._network.graph(*inputs), inputs, labels)


def _first_broken(graph: fx.GraphModule, inputs: Inputs) -> str:
    found: list[str] = []

    class Watched(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            made = super().run_node(n)
            if not found and isinstance(made, Tensor) and made.is_floating_point() and not bool(made.isfinite().all()):
                number = next((own.meta[FORMAT] for own in (n, *n.all_input_nodes) if FORMAT in own.meta), None)
                found.append(f"{graphs.value(n)}{f' ({number})' if number else ''} is the first that is no number")
            return made

    with torch.no_grad():
        Watched(graph).run(*inputs)
    return found[0] if found else ""
