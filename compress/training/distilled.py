"""Distillation: a small network learns to make what a larger one makes, from inputs alone.

The squared distance of the outputs themselves (Kim et al., Comparing Kullback-Leibler Divergence and Mean Squared Error
Loss in Knowledge Distillation, IJCAI 2021), each over the teacher's variance there, so that it holds for any output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from convkit.compress import graph as graphs
from convkit.compress.errors import ConvkitError
from convkit.compress.training import loop
from convkit.compress.training.loop import Cycle, Schedule
from convkit.compress.training.samples import Arrays, Inputs

if TYPE_CHECKING:
    from convkit.compress.data import Data
    from convkit.compress.model import Model
    from convkit.compress.training.augment import Augment

_QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear"})


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
    samples = Arrays(tensors(student, learns))
    parameters = [p.requires_grad_() for p in student.graph.parameters()]
    updates = loop.Cycle([(parameters, 1, 0)], schedule, schedule.epochs * samples.steps(schedule.batch, 1))
    target = Target(teacher, tensors(student, held), schedule.batch)
    learner, state = _Student(student, target, updates), loop.State()
    for state in loop.run(learner, samples, schedule, augment=augment):
        say(state.epoch, state.losses[-1], state.judged[-1])
    for parameter in parameters:
        parameter.requires_grad_(False)
    return Distilled(state.judged[0], min(state.judged), tuple(state.losses))


class Target:
    """What a student is to make: the outputs of `teacher`, each as far off as is told by its variance on `held`."""

    def __init__(self, teacher: Model, held: Inputs, batch: int) -> None:
        self._teacher, self._held, self._batch = teacher, held, batch
        parts = list(self._outputs(teacher.graph))
        made = [torch.cat([part[at].flatten() for part in parts]).double() for at in range(len(teacher.outputs))]
        self._scales = [1 / max(float(one.var(correction=0)), 1e-30) for one in made]

    def loss(self, made: Sequence[Tensor], inputs: Inputs) -> Tensor:
        """The mean square of what is off, over all outputs."""
        with torch.no_grad():
            wanted = self._teacher.graph(*inputs)
        return self._loss(made, wanted)

    def distance(self, student: nn.Module) -> float:
        """That of `student` on what is held back."""
        both = zip(self._outputs(student), self._outputs(self._teacher.graph), strict=True)
        parts = [(float(self._loss(made, wanted)), len(made[0])) for made, wanted in both]
        return sum(loss * count for loss, count in parts) / sum(count for _, count in parts)

    def _loss(self, made: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        parts = [(x - y).square().mean() * scale for x, y, scale in zip(made, wanted, self._scales, strict=True)]
        return torch.stack(parts).mean()

    def _outputs(self, graph: nn.Module) -> Iterator[Sequence[Tensor]]:
        for at in range(0, len(self._held[0]), self._batch):
            with torch.no_grad():
                made = graph(*(array[at : at + self._batch] for array in self._held))
            yield made


class _Student:
    def __init__(self, student: Model, target: Target, updates: Cycle) -> None:
        self._student, self._target, self.updates = student, target, updates

    def weights(self) -> Mapping[str, Tensor]:
        return self._student.graph.state_dict(keep_vars=True)

    def step(self, inputs: Inputs, labels: Tensor | None, at: float) -> float:
        del labels, at
        return self.updates.update([self._target.loss(self._student.graph(*inputs), inputs)])

    def judge(self) -> float:
        return self._target.distance(self._student.graph)

    def broken(self, inputs: Inputs) -> str:
        del inputs
        return ""


def tensors(model: Model, data: Data) -> Inputs:
    """The arrays of `data` in the order of the model's inputs."""
    return tuple(torch.from_numpy(data.arrays[spec.name]) for spec in model.inputs)
