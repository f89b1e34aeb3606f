"""The loop of every training: epochs over shuffled samples, a step for each batch, to be kept epoch by epoch.

A Learner is what differs: what a step does. The same seed, threads and build of torch give the same weights, also where
training was killed and goes on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from convkit.compress.errors import ConvkitError
from convkit.compress.training import draws

if TYPE_CHECKING:
    from convkit.compress.training.augment import Augment
    from convkit.compress.training.checkpoint import Checkpoint
    from convkit.compress.training.crew import Crew
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
            total, seen = total + loss * len(batch[0]), seen + len(batch[0])
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
    _put(learner, _named(tensors, _WEIGHTS))
    learner.updates.restore(_named(tensors, _UPDATES), told["updates"])
    known = int(told["epoch"]), list(told["losses"]), list(told["judged"])
    return State(*known, best=_named(tensors, _BEST), chance=tensors[_CHANCE])


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


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


class Cycle:
    """AdamW (Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019) with one cycle of the learning
    rate (Smith and Topin, Super-Convergence, 2019); the first steps of a rate that rises may be long, so the norm of a
    gradient is at most 1.

    `groups`: parameters, and by what the rate and the decay of each group are multiplied. `units`: by a parameter's id,
    by what each of its steps is multiplied, number for number.
    """

    def __init__(
        self,
        groups: Sequence[tuple[Sequence[Tensor], float, float]],
        schedule: Schedule,
        total: int,
        units: Mapping[int, Tensor] | None = None,
    ) -> None:
        self._parameters = [parameter for group, _, _ in groups for parameter in group]
        self._units = [(one, units[id(one)]) for one in self._parameters if id(one) in units] if units else []
        self._sound = True
        rates = [schedule.rate * times for _, times, _ in groups]
        given = [
            {"params": list(group), "lr": rate, "weight_decay": schedule.decay * decays}
            for (group, _, decays), rate in zip(groups, rates, strict=True)
        ]
        self._optimizer = torch.optim.AdamW(given, schedule.rate)
        # A cycle of one step would end where it begins, at next to nothing.
        self._rising = torch.optim.lr_scheduler.OneCycleLR(self._optimizer, rates, total) if total > 1 else None

    def update(self, losses: Iterable[Tensor], crew: Crew | None = None) -> float:
        """A step against the gradient of the sum of `losses`, this process's and those of its `crew`; that sum."""
        total = self.gradient(losses, crew)
        self.step()
        return total

    def gradient(self, losses: Iterable[Tensor], crew: Crew | None = None) -> float:
        """That of the sum of `losses`, on every parameter that it hangs on; the sum."""
        self._optimizer.zero_grad()
        total = torch.zeros(1)
        for loss in losses:
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        if crew is not None:
            crew.summed([total, *(one.grad for one in self._parameters if one.grad is not None)])
        self._sound = math.isfinite(float(total))
        return float(total)

    def step(self, shares: Sequence[float] = ()) -> None:
        """One against the gradient, with these `shares` of the rates of the groups, where given; none where the loss is
        no number, for where that began is seen in the weights as they are."""
        if not self._sound:
            return
        rates = [group["lr"] for group in self._optimizer.param_groups]
        for group, share in zip(self._optimizer.param_groups, shares or [1.0] * len(rates), strict=True):
            group["lr"] *= share
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        before = [parameter.detach().clone() for parameter, _ in self._units]
        self._optimizer.step()
        with torch.no_grad():
            for (parameter, unit), known in zip(self._units, before, strict=True):
                parameter.sub_(known).mul_(unit).add_(known)
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        if self._rising is not None:
            self._rising.step()

    def tensors(self) -> dict[str, Tensor]:
        """What AdamW keeps of each parameter, which is nothing of one without a gradient so far."""
        held = (self._optimizer.state.get(parameter, {}) for parameter in self._parameters)
        return {f"{at}.{name}": tensor for at, state in enumerate(held) for name, tensor in state.items()}

    def told(self) -> dict[str, Any]:
        """Where in the cycle it is."""
        rising = {} if self._rising is None else self._rising.state_dict()
        return {"groups": [_plain(group) for group in self._optimizer.param_groups], "rising": _plain(rising)}

    def restore(self, tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> None:
        """Go on from there."""
        for at, parameter in enumerate(self._parameters):
            if held := _named(tensors, f"{at}."):
                self._optimizer.state[parameter] = held
        for group, known in zip(self._optimizer.param_groups, told["groups"], strict=True):
            group.update({name: tuple(value) if isinstance(value, list) else value for name, value in known.items()})
        if self._rising is not None:
            self._rising.load_state_dict(self._rising.state_dict() | told["rising"])


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of it, and lists of them."""
    simple = (int, float, tuple, list)
    return {name: value for name, value in state.items() if isinstance(value, simple) and not _holds_tensors(value)}


def _holds_tensors(value: object) -> bool:
    return isinstance(value, list | tuple) and any(not isinstance(one, int | float) for one in value)
