"""Distillation: a small network learns to make what a larger one makes, from inputs alone.

The squared distance of the outputs themselves (Kim et al., Comparing Kullback-Leibler Divergence and Mean Squared Error
Loss in Knowledge Distillation, IJCAI 2021), each over the teacher's variance there, so that it holds for any output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from convkit.compress import graph as graphs
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from convkit.compress.data import Data
    from convkit.compress.model import Model
    from convkit.compress.training.augment import Augment

_CLIP = 1.0
"""Norm of a gradient, at most."""
_QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True, slots=True)
class Schedule:
    """`epochs` over the data, `batch` samples a step, the largest `rate` of a cycle."""

    epochs: int
    batch: int = 32
    rate: float = 5e-4
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Distilled:
    """The distance to the teacher, over its variance: `before` and `after` on what was held back, and of each epoch on
    what was learnt from."""

    before: float
    after: float
    losses: tuple[float, ...]


def check(student: Model, teacher: Model) -> None:
    """Raise ConvkitError unless both read and make tensors of the same shapes, and the student can be trained."""
    for what, own, other in (("input", student.inputs, teacher.inputs), ("output", student.outputs, teacher.outputs)):
        mine, theirs = ([tuple(spec.shape[1:]) for spec in specs] for specs in (own, other))
        if mine != theirs:
            raise ConvkitError(
                f"the {what}s of {student.name} are {_said(mine)}, the teacher's {_said(theirs)}",
                hint="the teacher is the network that the small one was made of",
            )
    if any(graphs.operator(node) in _QUANTIZED for node in graphs.computes(student.graph)):
        raise ConvkitError(f"{student.name} is quantized", hint="distil the network in float, then quantize it")


def _said(shapes: Sequence[tuple[object, ...]]) -> str:
    return ", ".join("x".join(map(str, shape)) or "scalar" for shape in shapes)


def distill(
    student: Model,
    teacher: Model,
    learns: Data,
    held: Data,
    schedule: Schedule,
    *,
    augment: Augment | None = None,
    say: Callable[[int, float, float], None] = lambda _epoch, _loss, _held: None,
) -> Distilled:
    """Train the weights of `student`, in place, on the inputs of `learns`; those of the epoch that is nearest to the
    teacher on `held` stay, which are its own where training brings it no nearer.

    `say` is told each epoch, its mean loss and that on `held`. The same seed, threads and build of torch give the same
    weights. Raises ConvkitError where the loss is no number any more.
    """
    inputs, count = _tensors(student, learns), len(learns)
    behind = _tensors(student, held)
    scales = _scales(teacher, behind, schedule.batch)
    parameters = [p.requires_grad_() for p in student.graph.parameters()]
    steps = schedule.epochs * math.ceil(count / schedule.batch)
    optimizer = torch.optim.AdamW(parameters, schedule.rate, weight_decay=0.0)
    rising = torch.optim.lr_scheduler.OneCycleLR(optimizer, schedule.rate, total_steps=steps) if steps > 1 else None
    chance, losses = torch.Generator().manual_seed(schedule.seed), list[float]()
    before = best = _distance(student, teacher, behind, scales, schedule.batch)
    kept = _state(student.graph)
    for epoch in range(1, schedule.epochs + 1):
        total = 0.0
        for rows in torch.split(torch.randperm(count, generator=chance), schedule.batch):
            batch = [array[rows] for array in inputs]
            if augment is not None:
                batch[0] = augment(batch[0], chance)
            with torch.no_grad():
                wanted = teacher.graph(*batch)
            loss = _loss(student.graph(*batch), wanted, scales)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, _CLIP)
            optimizer.step()
            if rising is not None:
                rising.step()
            total += float(loss.detach()) * len(rows)
        losses.append(total / count)
        if not math.isfinite(losses[-1]):
            raise ConvkitError(f"the loss of epoch {epoch} is {losses[-1]}", hint="give a smaller --rate")
        now = _distance(student, teacher, behind, scales, schedule.batch)
        if now < best:
            best, kept = now, _state(student.graph)
        say(epoch, losses[-1], now)
    student.graph.load_state_dict(kept)
    for parameter in parameters:
        parameter.requires_grad_(False)
    return Distilled(before, best, tuple(losses))


def _tensors(model: Model, data: Data) -> list[Tensor]:
    return [torch.from_numpy(data.arrays[spec.name]) for spec in model.inputs]


def _state(graph: nn.Module) -> Mapping[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in graph.state_dict().items()}


def _scales(teacher: Model, inputs: Sequence[Tensor], batch: int) -> list[float]:
    """Of each output one over its variance, over all samples and places."""
    parts = list(_outputs(teacher, inputs, batch))
    made = [torch.cat([part[at].flatten() for part in parts]).double() for at in range(len(teacher.outputs))]
    return [1 / max(float(one.var(correction=0)), 1e-30) for one in made]


def _outputs(model: Model, inputs: Sequence[Tensor], batch: int) -> list[Sequence[Tensor]]:
    with torch.no_grad():
        return [model.graph(*(array[at : at + batch] for array in inputs)) for at in range(0, len(inputs[0]), batch)]


def _loss(made: Sequence[Tensor], wanted: Sequence[Tensor], scales: Sequence[float]) -> Tensor:
    """The mean square of what is off, over all outputs."""
    parts = [(x - y).square().mean() * scale for x, y, scale in zip(made, wanted, scales, strict=True)]
    return torch.stack(parts).mean()


def _distance(student: Model, teacher: Model, inputs: Sequence[Tensor], scales: Sequence[float], batch: int) -> float:
    both = zip(_outputs(student, inputs, batch), _outputs(teacher, inputs, batch), strict=True)
    parts = [(float(_loss(made, wanted, scales)), len(made[0])) for made, wanted in both]
    return sum(loss * count for loss, count in parts) / sum(count for _, count in parts)
