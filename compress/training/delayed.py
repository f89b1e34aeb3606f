"""Training an elastic network: the whole one first, then all of its members in its place.

DεpS (Delayed ε-Shrinking, Annavajjala et al., ECCV 2024): the whole network is trained alone for a part of the epochs;
then each step also trains the least member and random ones on what the whole one says (sandwich and in-place
distillation, Yu et al., BigNAS, ECCV 2020). Members begin at a rate of nothing and reach, over some epochs, the rate
that the whole network had when shrinking began: gradients of theirs are weighed by that over the rate of the moment.
With no delay and no such epochs this is how BigNAS trains.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from convkit.compress.training import loop
from convkit.compress.training.choice import Choice
from convkit.compress.training.crew import Crew
from convkit.compress.training.elastic import Elastic, Member, products
from convkit.compress.training.loop import State
from convkit.compress.training.samples import Arrays, Inputs, taken

if TYPE_CHECKING:
    from convkit.compress.training.augment import Augment

_LABEL, _BACKWARD = 0.1, 3
"""Smoothing of labels; what a step costs in passes forward: one back is two."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """`epochs` over the data in batches of `batch`, the largest `rate` of a cosine, weight `decay`.

    Members are trained from the part `delay` of the epochs on; `warm`: epochs before that in which their rate rises.
    `members` of a step, the whole and the least among them. `shards`: parts of a batch that are run each for itself,
    on as many processes as there are: the same parts give the same result however many these are.
    """

    epochs: int
    batch: int = 64
    rate: float = 0.1
    decay: float = 3e-5
    momentum: float = 0.9
    delay: float = 0.5
    warm: float = 2.0
    members: int = 4
    compound: bool = False
    shards: int = 1
    seed: int = 0

    @property
    def switch(self) -> float:
        """T_w: the epoch at which members have reached the whole network's rate."""
        return self.delay * self.epochs

    @property
    def begin(self) -> float:
        """The epoch from which members are trained."""
        return max(0.0, self.switch - self.warm)

    def rate_at(self, epoch: float) -> float:
        """λ: a cosine from `rate` to nothing."""
        return self.rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2

    def weight_at(self, epoch: float) -> float:
        """β: of members' gradients beside the whole network's; none before they begin."""
        if epoch < self.begin:
            return 0.0
        if epoch >= self.switch:
            return 1.0
        rising = (epoch - self.begin) / (self.switch - self.begin)
        return rising * self.rate_at(self.switch) / self.rate_at(epoch)


class Descent:
    """Stochastic gradient descent with Nesterov's momentum; norms and biases do not decay. `products`: multiply-
    accumulates that training took so far."""

    def __init__(self, named: dict[str, torch.nn.Parameter]) -> None:
        self._named, self._momentum = named, {name: torch.zeros_like(tensor) for name, tensor in named.items()}
        self.products = 0.0

    def update(self, schedule: Schedule, at: float) -> None:
        """A step against the gradients of the parameters, which are taken away."""
        rate = schedule.rate_at(at)
        with torch.no_grad():
            for name, parameter in self._named.items():
                gradient = parameter.grad
                if gradient is None:
                    continue
                if parameter.ndim > 1:
                    gradient = gradient + schedule.decay * parameter
                speed = self._momentum[name].mul_(schedule.momentum).add_(gradient)
                parameter.sub_(rate * (gradient + schedule.momentum * speed))
                parameter.grad = None

    def tensors(self) -> Mapping[str, Tensor]:
        """The momentum of each parameter."""
        return self._momentum

    def told(self) -> dict[str, Any]:
        """The products."""
        return {"products": self.products}

    def restore(self, tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._momentum = dict(tensors)
        self.products = float(told["products"])


class Members:
    """An elastic network that learns classes, with its members behind it."""

    def __init__(self, elastic: Elastic, schedule: Schedule, crew: Crew, begin: Callable[[], None] | None) -> None:
        self._elastic, self._schedule, self._crew, self._begin = elastic, schedule, crew, begin
        self._named = dict(elastic.named_parameters())
        self.updates = Descent(self._named)
        self._whole = elastic.member(elastic.space.whole)

    def weights(self) -> Mapping[str, Tensor]:
        """Parameters and statistics of norms."""
        return self._elastic.state_dict(keep_vars=True)

    def step(self, inputs: Inputs, labels: Tensor | None, at: float) -> float:
        """By the gradients of the whole network and of its members."""
        schedule, crew = self._schedule, self._crew
        assert labels is not None  # there are some of all samples  # noqa: S101
        if self._begin is not None and at >= schedule.begin:
            self._begin()
            self._begin = None
            self._whole = self._elastic.member(self._elastic.space.whole)
        chance = random.Random(f"{schedule.seed} {at}")  # noqa: S311 - no secret
        members = [self._elastic.member(one) for one in _members(self._elastic, schedule, at, chance)]
        for one in (self._whole, *members):
            one.shape.train()
        found = _step(self._whole, members, inputs, labels, schedule, at, crew)
        lost = torch.tensor([found], dtype=torch.float64)
        crew.summed([lost])
        crew.summed([parameter.grad for parameter in self._named.values() if parameter.grad is not None])
        self.updates.update(schedule, at)
        self.updates.products += _BACKWARD * len(labels) * sum(products(one) for one in (self._whole, *members))
        return float(lost)

    def judge(self) -> None:
        """Nothing is held back: a choice among members is made afterwards."""

    def broken(self, inputs: Inputs) -> str:
        """Nothing is known but that it is."""
        del inputs
        return ""


def train(
    elastic: Elastic,
    arrays: Inputs,
    labels: Tensor,
    schedule: Schedule,
    *,
    kept: tuple[Mapping[str, Tensor], Mapping[str, Any]] | None = None,
    augment: Augment | None = None,
    crew: Crew | None = None,
    begin: Callable[[], None] | None = None,
) -> Iterator[tuple[Members, State]]:
    """Train on the inputs `arrays` [N, …] with classes `labels` [N]; the state after every epoch, to be kept with
    `loop.packed`. What was `kept` goes on to the same result to the last bit.

    `begin` is called where members begin, to rank channels; None where they are ranked already. Raises ConvkitError
    where the loss is no number any more, or shards do not fit.
    """
    crew = crew or Crew()
    crew.check(schedule.batch, schedule.shards)
    learner = Members(elastic, schedule, crew, begin)
    state = None if kept is None else loop.unpacked(learner, *kept)
    for now in loop.run(learner, Arrays(arrays, labels), schedule, least=schedule.batch, augment=augment, state=state):
        yield learner, now


def _members(elastic: Elastic, schedule: Schedule, at: float, chance: random.Random) -> list[Choice]:
    """Those of a step beside the whole network."""
    if at < schedule.begin:
        return []
    count = schedule.members - 2
    others = [elastic.space.drawn(chance, compound=schedule.compound) for _ in range(count)]
    return [elastic.space.least, *others]


def _step(
    whole: Member,
    members: list[Member],
    batch: tuple[Tensor, ...],
    labels: Tensor,
    schedule: Schedule,
    at: float,
    crew: Crew,
) -> float:
    """Gradients of one batch, in the parameters; the loss of the whole network on this process's shards."""
    parts, total = schedule.shards, 0.0
    for shard in crew.shards(parts):
        inputs = taken(batch, slice(shard, None, parts))
        (made, *_) = whole(*inputs)
        loss = F.cross_entropy(made, labels[shard::parts], label_smoothing=_LABEL)
        (loss / parts).backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach()) / parts
        soft, weight = F.softmax(made.detach(), 1), schedule.weight_at(at)
        for member in members:
            (said, *_) = member(*inputs)
            (F.cross_entropy(said, soft) * weight / parts).backward()  # type: ignore[no-untyped-call]
    return total
