"""The loop of every training: epochs over shuffled samples, a step for each batch, to be kept epoch by epoch.

A Learner is what differs: what a step does. The same seed, threads and build of torch give the same weights, also where
training was killed and goes on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from convkit.compress.errors import ConvkitError
from convkit.compress.training import draws
from convkit.compress.training.cycle import named
from convkit.compress.training.samples import length

if TYPE_CHECKING:
    from convkit.compress.training.augment import Augment
    from convkit.compress.training.checkpoint import Checkpoint
    from convkit.compress.training.samples import Inputs, Samples

_CHANCE, _WEIGHTS, _UPDATES, _BEST = "chance", "weights.", "updates.", "best."


@dataclass(frozen=True, slots=True)
class Schedule:
    """`epochs` passes over the data, `batch` samples a step, the largest learning `rate`, weight `decay`."""

    epochs: int
    batch: int = 64
    rate: float = 3e-3
    decay: float = 1e-2
    seed: int = 0


class Rhythm(Protocol):
    """What of a schedule the loop itself goes by."""

    @property
    def epochs(self) -> int:
        """Passes over the data."""

    @property
    def batch(self) -> int:
        """Samples of a step."""

    @property
    def seed(self) -> int:
        """Of the order of samples."""


class Updates(Protocol):
    """What an optimizer keeps, beside the network's own tensors."""

    def tensors(self) -> Mapping[str, Tensor]:
        """Of each parameter, such as momentum."""

    def told(self) -> Mapping[str, Any]:
        """The rest of it, as JSON."""

    def restore(self, tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> None:
        """Go on from what these two were."""


class Learner(Protocol):
    """What learns, and by what it is updated."""

    @property
    def updates(self) -> Updates:
        """Its optimizer."""

    def weights(self) -> Mapping[str, Tensor]:
        """All tensors of it that training changes, as they are now."""

    def step(self, inputs: Inputs, labels: Tensor | None, at: float) -> float:
        """Learn from a batch, `at` so many epochs; its loss before."""

    def judge(self) -> float | None:
        """What is the less the better, on samples that are not learnt from; None where there are none."""

    def broken(self, inputs: Inputs) -> str:
        """Where the loss of a batch is no number: what there is to say of it, if anything."""


@dataclass(slots=True)
class State:
    """How far training has come: epochs that are done, the mean loss of each, what was judged before the first and
    after each, the tensors of the best so far, and the seconds that steps took since it began or went on."""

    epoch: int = 0
    losses: list[float] = field(default_factory=list)
    judged: list[float] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    chance: Tensor | None = None
    seconds: float = 0.0


def run(
    learner: Learner,
    samples: Samples,
    schedule: Rhythm,
    *,
    least: int = 1,
    augment: Augment | None = None,
    state: State | None = None,
    last: bool = False,
) -> Iterator[State]:
    """Train on `samples`, a last batch of fewer than `least` left out; the state after every epoch, after the last with
    the best tensors put back, but where the `last` ones are what training comes to.

    Raises ConvkitError where the loss is no number any more.
    """
    now, planned = state or State(), samples.steps(schedule.batch, least)
    chance = torch.Generator().manual_seed(schedule.seed)
    if now.chance is not None:
        chance.set_state(now.chance)
    if not now.judged:
        _judge(learner, now, last=last)
    if now.epoch >= schedule.epochs:
        yield now  # killed behind the last epoch, before the output stood
    for epoch in range(now.epoch, schedule.epochs):
        total, seen, began = 0.0, 0, time.monotonic()
        draws.begin(schedule.seed, epoch)
        for place, (inputs, labels) in enumerate(samples.epoch(epoch, schedule.batch, least, chance)):
            batch = inputs if augment is None else (augment(inputs[0], chance), *inputs[1:])
            loss = learner.step(batch, labels, epoch + place / planned)
            if not math.isfinite(loss):
                raise _broken(learner, batch, epoch, loss)
            total, seen = total + loss * length(batch), seen + length(batch)
        now.losses.append(total / seen)
        now.seconds += time.monotonic() - began
        now.epoch, now.chance = epoch + 1, chance.get_state()
        _judge(learner, now, last=last)
        if now.epoch == schedule.epochs and now.best:
            _put(learner, now.best)
        yield now


def keeping(
    learner: Learner,
    samples: Samples,
    schedule: Rhythm,
    kept: Checkpoint | None,
    *,
    least: int = 1,
    augment: Augment | None = None,
) -> Iterator[State]:
    """`run`, each epoch `kept`, and what was kept gone on with."""
    known = None if kept is None else kept.load()
    state = None if known is None else unpacked(learner, *known)
    for now in run(learner, samples, schedule, least=least, augment=augment, state=state):
        if kept is not None:
            kept.keep(now.epoch, *packed(learner, now))
        yield now


def _judge(learner: Learner, state: State, *, last: bool) -> None:
    found = learner.judge()
    if found is None:
        return
    if not last and (not state.judged or found < min(state.judged)):
        state.best = {name: tensor.detach().clone() for name, tensor in learner.weights().items()}
    state.judged.append(found)


def _broken(learner: Learner, inputs: Inputs, epoch: int, loss: float) -> ConvkitError:
    why = learner.broken(inputs)
    return ConvkitError(
        f"the loss of epoch {epoch + 1} is {loss}{f': {why}' if why else ''}", hint="train anew with a smaller --rate"
    )


def packed(learner: Learner, state: State) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All that a checkpoint keeps: tensors by name, and JSON."""
    assert state.chance is not None  # an epoch is done  # noqa: S101
    parts = {_WEIGHTS: learner.weights(), _UPDATES: learner.updates.tensors(), _BEST: state.best}
    tensors = {
        prefix + name: tensor.detach().contiguous().clone()
        for prefix, of in parts.items()
        for name, tensor in of.items()
    }
    told = {"epoch": state.epoch, "losses": state.losses, "judged": state.judged, "updates": learner.updates.told()}
    return tensors | {_CHANCE: state.chance}, told


def unpacked(learner: Learner, tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> State:
    """Put the learner back as it was, and return how far training had come."""
    _put(learner, named(tensors, _WEIGHTS))
    learner.updates.restore(named(tensors, _UPDATES), told["updates"])
    known = int(told["epoch"]), list(told["losses"]), list(told["judged"])
    return State(*known, best=named(tensors, _BEST), chance=tensors[_CHANCE])


def _put(learner: Learner, tensors: Mapping[str, Tensor]) -> None:
    own = learner.weights()
    differs = [name for name, tensor in own.items() if name not in tensors or tensors[name].shape != tensor.shape]
    if differs or len(own) != len(tensors):
        raise ConvkitError(
            f"the checkpoint is of another network{f': {differs[0]} differs' if differs else ''}",
            hint="train in a new folder, or give the network that it is of",
        )
    for name, tensor in own.items():
        tensor.data.copy_(tensors[name])
