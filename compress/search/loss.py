"""What rounding costs, as a sum over samples: its exact value, and the slope and curvature that foretell it.

Every Loss here is, to second order in a change δu of the features u it makes of a network's outputs,
slopeᵀδu + E[(vᵀδu)²] over its random probes v: a squared distance is exactly that (v of random signs, Hutchinson 1990),
and so is a cross-entropy by its Gauss-Newton curvature, which is its Fisher information.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from convkit.compress.errors import ConvkitError
from convkit.compress.metric import same_shape

Tensors = Sequence[Tensor]


class Loss(Protocol):
    """`at` is the index of the batch; `exact` are the float network's features of it."""

    def features(self, outputs: Tensors) -> list[Tensor]:
        """Differentiable features of the network's outputs."""

    def probe(self, features: Tensors, generator: torch.Generator) -> list[Tensor]:
        """A random v, of the features' shapes."""

    def slope(self, features: Tensors, at: int) -> list[Tensor] | None:
        """First derivative by the features; None where the float network is at the minimum."""

    def excess(self, features: Tensors, exact: Tensors, at: int) -> float:
        """What these features cost more than the exact ones do."""


@dataclass(frozen=True, slots=True)
class Distance:
    """Squared distance to the float network's outputs over their power, the mean of all outputs: noise over signal."""

    powers: Tensors
    """Sum of squares of each output over all samples, scalars."""

    def features(self, outputs: Tensors) -> list[Tensor]:
        """Outputs of power 1 in all."""
        return [
            z / (len(self.powers) * power).sqrt().to(z.dtype) for z, power in zip(outputs, self.powers, strict=True)
        ]

    def probe(self, features: Tensors, generator: torch.Generator) -> list[Tensor]:
        """Random signs."""
        return [_signs(u, generator) for u in features]

    def slope(self, features: Tensors, at: int) -> list[Tensor] | None:
        """None: the distance of the float network to itself is least."""
        return None

    def excess(self, features: Tensors, exact: Tensors, at: int) -> float:
        """Noise over signal."""
        return sum(float((u - w).double().square().sum()) for u, w in zip(features, exact, strict=True))


@dataclass(frozen=True, slots=True)
class SquaredError:
    """Squared distance of the first output to `wanted`, a tensor a batch, over the output's `power` on all samples."""

    wanted: Tensors
    power: Tensor

    def features(self, outputs: Tensors) -> list[Tensor]:
        """The first output, of power 1."""
        return [outputs[0] / self.power.sqrt().to(outputs[0].dtype)]

    def probe(self, features: Tensors, generator: torch.Generator) -> list[Tensor]:
        """Random signs."""
        return [_signs(features[0], generator)]

    def slope(self, features: Tensors, at: int) -> list[Tensor]:
        """Twice the float network's own error."""
        return [2 * (features[0] - self._wanted(at, features[0]))]

    def excess(self, features: Tensors, exact: Tensors, at: int) -> float:
        """Squared error more than the float network's."""
        wanted = self._wanted(at, exact[0])
        got, had = ((u[0] - wanted).double().square().sum() for u in (features, exact))
        return float(got - had)

    def _wanted(self, at: int, like: Tensor) -> Tensor:
        same_shape(like.detach().numpy(), self.wanted[at].numpy(), "the labels")
        return self.wanted[at].to(like.dtype) / self.power.sqrt().to(like.dtype)


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """Mean cross-entropy, in nats, of the first output, scores or probabilities [N, C, …], to classes.

    `wanted` is a tensor a batch: int64 [N, …], or float [N, C, …] that share 1 among the classes which are right.
    """

    wanted: Tensors
    count: int
    """Positions in all batches."""

    def features(self, outputs: Tensors) -> list[Tensor]:
        """Log-probabilities."""
        z = outputs[0]
        return [z.clamp(min=torch.finfo(z.dtype).tiny).log() if _probabilities(z) else F.log_softmax(z, 1)]

    def probe(self, features: Tensors, generator: torch.Generator) -> list[Tensor]:
        """Signs times √(p / 2): ½ Σ p δu² is the curvature of the cross-entropy."""
        (u,) = features
        return [_signs(u, generator) * (u / 2).exp() / (2 * self.count) ** 0.5]

    def slope(self, features: Tensors, at: int) -> list[Tensor]:
        """Minus the classes wanted."""
        return [-self._wanted(at, features[0]) / self.count]

    def excess(self, features: Tensors, exact: Tensors, at: int) -> float:
        """Cross-entropy more than the float network's."""
        wanted = self._wanted(at, exact[0]).double()
        return float((wanted * (exact[0] - features[0]).double()).sum()) / self.count

    def _wanted(self, at: int, like: Tensor) -> Tensor:
        wanted = self.wanted[at]
        if not wanted.is_floating_point():
            wanted = F.one_hot(wanted, like.shape[1]).movedim(-1, 1)
        same_shape(like.detach().numpy(), wanted.numpy(), "the labels' classes are")
        return wanted.to(like.dtype)


def distance(outputs: Sequence[Tensors]) -> Distance:
    """The label-free loss, given the float outputs of each batch."""
    powers = [torch.stack([z.double().square().sum() for z in each]).sum() for each in zip(*outputs, strict=True)]
    return Distance([_power(power) for power in powers])


def labelled(outputs: Sequence[Tensors], labels: Tensors) -> Loss:
    """The loss for labels, a tensor a batch as `Data.labels` has them, given the float outputs of each batch.

    Integers are classes, a boolean [N, C] the classes that are acceptable, floats the outputs wanted.
    """
    first, kind = labels[0], labels[0].dtype
    if kind.is_floating_point:
        return SquaredError(labels, _power(torch.stack([out[0].double().square().sum() for out in outputs]).sum()))
    classes = outputs[0][0].shape[1] if outputs[0][0].ndim > 1 else 1
    if kind is torch.bool:
        return CrossEntropy([one.float() / one.sum(1, keepdim=True).clamp(min=1) for one in labels], _rows(labels))
    if int(min(one.min() for one in labels)) < 0 or int(max(one.max() for one in labels)) >= classes:
        raise ConvkitError(f"the labels are no classes of an output {list(outputs[0][0].shape)}", hint="check --labels")
    return CrossEntropy([one.long() for one in labels], sum(one.numel() for one in labels) or len(first))


def _power(squares: Tensor) -> Tensor:
    """An output that is all zero still needs a power to divide by."""
    return squares.clamp(min=torch.finfo(torch.float32).tiny)


def _rows(labels: Tensors) -> int:
    return sum(one.shape[0] * one[0, 0].numel() for one in labels)


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, like.shape, generator=generator).to(like.dtype) * 2 - 1


def _probabilities(z: Tensor) -> bool:
    some = z.detach()
    return bool((some >= 0).all()) and bool(torch.allclose(some.sum(1), torch.ones(()), atol=1e-3))
