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
from convkit.compress.training.cycle import Cycle
from convkit.compress.training.loop import Schedule
from convkit.compress.training.normed import Normed
from convkit.compress.training.samples import Arrays, Inputs, length, taken

if TYPE_CHECKING:
    from convkit.compress.data import Data
    from convkit.compress.model import Model
    from convkit.compress.training.augment import Augment
    from convkit.compress.training.checkpoint import Checkpoint

_FLOATS = frozenset({"float16", "float32", "float64", "bfloat16"})
_VARIES = 1e-4
"""Of the mean square of an output, the least variance that is taken for one."""
_QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear"})
_NORMED, _SEEN = 2, 1024
"""Samples that a norm has a variance of, and those that norms begin with."""


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
    data: tuple[Data, Data],
    schedule: Schedule,
    *,
    augment: Augment | None = None,
    norms: bool = False,
    kept: Checkpoint | None = None,
    say: Callable[[int, float, float], None] = lambda _epoch, _loss, _held: None,
) -> Distilled:
    """Train the weights of `student`, in place, on the inputs of `data`, (learnt from, held back). Those of the epoch
    that is nearest to the teacher on what is held back stay, which are its own where training brings it no nearer.

    `norms`: put behind convolutions meanwhile. Each epoch is `kept`, and what was kept gone on with. `say` is told each
    epoch, its mean loss and that on what is held back. The same seed, threads and build of torch give the same
    weights. Raises ConvkitError where the loss is no number any more.
    """
    learns, held = data
    inputs, least = tensors(student, learns), _NORMED if norms else 1
    samples = Arrays(inputs)
    normed = Normed(student.graph, _some(inputs, schedule.batch)) if norms else None
    parameters = [p.requires_grad_() for p in student.graph.parameters()]
    updates = Cycle([(parameters, 1, 0)], schedule, schedule.epochs * samples.steps(schedule.batch, least))
    target = Target(teacher, tensors(student, held), schedule.batch)
    learner = _Student(student, target, updates, normed)
    state = loop.State()
    for state in loop.keeping(learner, samples, schedule, kept, least=least, augment=augment):
        say(state.epoch, state.losses[-1], state.judged[-1])
    if normed is not None:
        normed.fold(learnt=min(state.judged) < state.judged[0])
    for parameter in student.graph.parameters():
        parameter.requires_grad_(False)
    return Distilled(state.judged[0], min(state.judged), tuple(state.losses))


class Target:
    """What a student is to make: the outputs of `teacher` that are no whole numbers, such as classes, each as far off
    as is told by its variance on `held`."""

    def __init__(self, teacher: Model, held: Inputs, batch: int) -> None:
        self._teacher, self._held, self._batch = teacher, held, batch
        self._floats = [at for at, spec in enumerate(teacher.outputs) if spec.dtype in _FLOATS]
        if not self._floats:
            raise ConvkitError(f"{teacher.name} makes whole numbers alone", hint="give one that makes scores as well")
        parts = list(self._outputs(teacher.graph))
        self._scales = [_scale(torch.cat([part[at].flatten() for part in parts]).double()) for at in self._floats]

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
        pairs = ((made[at], wanted[at]) for at in self._floats)
        parts = [(x - y).square().mean() * scale for (x, y), scale in zip(pairs, self._scales, strict=True)]
        return torch.stack(parts).mean()

    def _outputs(self, graph: nn.Module) -> Iterator[Sequence[Tensor]]:
        for at in range(0, length(self._held), self._batch):
            with torch.no_grad():
                made = graph(*taken(self._held, slice(at, at + self._batch)))
            yield made


def _scale(made: Tensor) -> float:
    """One over the variance of an output; over a part of its mean square where it hardly varies, which is chance."""
    least = max(float(made.var(correction=0)), _VARIES * float(made.square().mean()))
    return 1 / least if least > 0 else 1.0


class _Student:
    def __init__(self, student: Model, target: Target, updates: Cycle, normed: Normed | None) -> None:
        self._student, self._target, self.updates, self._normed = student, target, updates, normed

    def weights(self) -> Mapping[str, Tensor]:
        return self._student.graph.state_dict(keep_vars=True)

    def step(self, inputs: Inputs, labels: Tensor | None, at: float) -> float:
        del labels, at
        if self._normed is not None:
            self._normed.train()
        return self.updates.update([self._target.loss(self._student.graph(*inputs), inputs)])

    def judge(self) -> float:
        if self._normed is not None:
            self._normed.train(mode=False)
        return self._target.distance(self._student.graph)

    def broken(self, inputs: Inputs) -> str:
        del inputs
        return ""


def _some(inputs: Inputs, batch: int) -> list[Inputs]:
    """Some samples, evenly from all, a batch at a time."""
    whole = length(inputs)
    seen = min(_SEEN, whole)
    rows = torch.arange(seen) * whole // seen
    return [taken(inputs, rows[at : at + batch]) for at in range(0, seen, batch)]


def tensors(model: Model, data: Data) -> Inputs:
    """The arrays of `data` in the order of the model's inputs."""
    return tuple(torch.from_numpy(data.arrays[spec.name]) for spec in model.inputs)
