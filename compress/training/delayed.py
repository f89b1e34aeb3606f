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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from convkit.compress.errors import ConvkitError
from convkit.compress.training.choice import Choice
from convkit.compress.training.crew import Crew
from convkit.compress.training.elastic import Elastic, Member, products

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


@dataclass(slots=True)
class State:
    """How far training has come: epochs that are done, momentum of each parameter, the losses of the whole network, and
    multiply-accumulates that training took."""

    epoch: int
    momentum: dict[str, Tensor]
    losses: list[float]
    products: float = 0.0


def train(
    elastic: Elastic,
    arrays: tuple[Tensor, ...],
    labels: Tensor,
    schedule: Schedule,
    *,
    state: State | None = None,
    augment: Augment | None = None,
    crew: Crew | None = None,
    begin: Callable[[], None] | None = None,
) -> Iterator[State]:
    """Train on the inputs `arrays` [N, …] with classes `labels` [N]; the state after every epoch, to be kept.

    `begin` is called where members begin, to rank channels. What ran before goes on from its `state` to the same result
    to the last bit. Raises ConvkitError where the loss is no number any more, or shards do not fit.
    """
    crew = crew or Crew()
    if schedule.batch % schedule.shards or schedule.shards % crew.size:
        raise ConvkitError(
            f"a batch of {schedule.batch} in {schedule.shards} shards does not go into {crew.size} processes",
            hint="give --batch and --shards that do",
        )
    named = dict(elastic.named_parameters())
    now = state or State(0, {name: torch.zeros_like(tensor) for name, tensor in named.items()}, [])
    whole = elastic.member(elastic.space.whole)
    for epoch in range(now.epoch, schedule.epochs):
        if begin is not None and epoch <= schedule.begin < epoch + 1:
            begin()
            whole = elastic.member(elastic.space.whole)
        order = torch.Generator().manual_seed(_seed(schedule.seed, epoch))
        chance = random.Random(_seed(schedule.seed, epoch))  # noqa: S311 - no secret
        parts = torch.split(torch.randperm(len(labels), generator=order), schedule.batch)
        rows = [one for one in parts if len(one) == schedule.batch] or [parts[0]]
        total = 0.0
        for step, chosen in enumerate(rows):
            at = epoch + step / len(rows)
            batch = tuple(array[chosen] for array in arrays)
            if augment is not None:
                batch = (augment(batch[0], order), *batch[1:])
            members = [elastic.member(one) for one in _members(elastic, schedule, at, chance)]
            for one in (whole, *members):
                one.shape.train()
            lost = torch.tensor([_step(whole, members, batch, labels[chosen], schedule, at, crew)], dtype=torch.float64)
            crew.summed([lost])
            crew.summed([parameter.grad for parameter in named.values() if parameter.grad is not None])
            _update(named, now.momentum, schedule, at)
            total += float(lost)
            now.products += _BACKWARD * len(chosen) * sum(products(one) for one in (whole, *members))
        now.losses.append(total / len(rows))
        now.epoch = epoch + 1
        if not math.isfinite(now.losses[-1]):
            raise ConvkitError(f"the loss of epoch {epoch + 1} is {now.losses[-1]}", hint="give a smaller --rate")
        yield now


def _seed(seed: int, epoch: int) -> int:
    return seed * 100_003 + epoch


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
        inputs = tuple(array[shard::parts] for array in batch)
        (made, *_) = whole(*inputs)
        loss = F.cross_entropy(made, labels[shard::parts], label_smoothing=_LABEL)
        (loss / parts).backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach()) / parts
        soft, weight = F.softmax(made.detach(), 1), schedule.weight_at(at)
        for member in members:
            (said, *_) = member(*inputs)
            (F.cross_entropy(said, soft) * weight / parts).backward()  # type: ignore[no-untyped-call]
    return total


def _update(named: dict[str, torch.nn.Parameter], momentum: dict[str, Tensor], schedule: Schedule, at: float) -> None:
    """Stochastic gradient descent with Nesterov's momentum; norms and biases do not decay."""
    rate = schedule.rate_at(at)
    with torch.no_grad():
        for name, parameter in named.items():
            gradient = parameter.grad
            if gradient is None:
                continue
            if parameter.ndim > 1:
                gradient = gradient + schedule.decay * parameter
            speed = momentum[name].mul_(schedule.momentum).add_(gradient)
            parameter.sub_(rate * (gradient + schedule.momentum * speed))
            parameter.grad = None


def packed(elastic: Elastic, state: State) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All that a checkpoint keeps: tensors by name, and JSON."""
    tensors = {f"network.{name}": tensor.detach().contiguous().clone() for name, tensor in elastic.state_dict().items()}
    tensors |= {f"momentum.{name}": tensor.contiguous().clone() for name, tensor in state.momentum.items()}
    return tensors, {"epoch": state.epoch, "losses": state.losses, "products": state.products}


def unpacked(elastic: Elastic, tensors: dict[str, Tensor], told: dict[str, Any]) -> State:
    """Put the network back as it was, and return how far training had come.

    Raises ConvkitError for a checkpoint of another elastic network.
    """
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "momentum": {}}
    for key, tensor in tensors.items():
        kind, _, name = key.partition(".")
        parts.get(kind, {})[name] = tensor.clone()
    own = elastic.state_dict()
    shapes = {name: tensor.shape for name, tensor in own.items()}
    if {name: tensor.shape for name, tensor in parts["network"].items()} != shapes:
        differs = next((n for n in shapes if n not in parts["network"] or parts["network"][n].shape != shapes[n]), "")
        raise ConvkitError(
            f"the checkpoint is of another network{f': {differs} differs' if differs else ''}",
            hint="train in a new folder, or give the network that it is of",
        )
    elastic.load_state_dict(parts["network"])
    return State(int(told["epoch"]), parts["momentum"], list(told["losses"]), float(told["products"]))
