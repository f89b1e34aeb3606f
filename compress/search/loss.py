"""What rounding costs, as a sum over samples: its exact value, and the slope and curvature that foretell it.

Every Loss here is, to second order in a change δu of the features u it makes of a network's outputs,
slopeᵀδu + E[(vᵀδu)²] over its random probes v: a squared distance is exactly that (v of random signs, Hutchinson 1990),
and so is a cross-entropy by its Gauss-Newton curvature, which is its Fisher information.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from convkit.compress.labels import LEAST_PROBABILITY, acceptable, are_targets
from convkit.compress.metric import class_axis, probabilities, require_classes, same_shape

Tensors = Sequence[Tensor]


class Loss(Protocol):
    """`at` is the index of the batch; `exact` are the float network's features of it."""

    def features(self, outputs: Tensors) -> list[Tensor]:
        """Differentiable features of the network's outputs."""

    def probe(self, features: Tensors, at: int, generator: torch.Generator) -> list[Tensor]:
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

    def probe(self, features: Tensors, at: int, generator: torch.Generator) -> list[Tensor]:
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
    """Squared distance of the first output to `wanted`, a tensor a batch, over the `power` of these on all samples."""

    wanted: Tensors
    power: Tensor

    def features(self, outputs: Tensors) -> list[Tensor]:
        """The first output, in units of what is wanted."""
        return [outputs[0] / self.power.sqrt().to(outputs[0].dtype)]

    def probe(self, features: Tensors, at: int, generator: torch.Generator) -> list[Tensor]:
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
        return self.wanted[at].to(like.dtype) / self.power.sqrt().to(like.dtype)


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """Mean cross-entropy, in nats, of the first output to the classes that are `right`, as the metric has it.

    `right` is a boolean tensor a batch, classes on axis 1, `axis` that of the output; where several are right, it is
    of their probability together. `odds`: outputs are probabilities. `count` of positions that have a right class.
    """

    right: Tensors
    count: int
    axis: int = 1
    odds: bool = False

    def features(self, outputs: Tensors) -> list[Tensor]:
        """Log-probabilities, classes on axis 1."""
        z = outputs[0].movedim(self.axis, 1)
        return [F.log_softmax(z.clamp(min=LEAST_PROBABILITY).log() if self.odds else z, 1)]

    def probe(self, features: Tensors, at: int, generator: torch.Generator) -> list[Tensor]:
        """Signs times √(p / 2): ½ Σ p δu² is the curvature of the cross-entropy."""
        (u,) = features
        return [_signs(u, generator) * (u / 2).exp() * self._counted(at) / (2 * self.count) ** 0.5]

    def slope(self, features: Tensors, at: int) -> list[Tensor]:
        """Minus the classes that are right, by the probability that the float network gives to each of them."""
        (u,) = features
        return [-torch.where(self.right[at], (u - self._log(u, at)).exp(), 0.0) / self.count]

    def excess(self, features: Tensors, exact: Tensors, at: int) -> float:
        """Cross-entropy more than the float network's."""
        return float((self._log(exact[0], at).double() - self._log(features[0], at).double()).sum()) / self.count

    def _log(self, u: Tensor, at: int) -> Tensor:
        """Log-probability of the right classes together [N, 1, …]; zero where there are none."""
        none = ~self._counted(at)
        return torch.where(self.right[at] | none, u, -torch.inf).logsumexp(1, keepdim=True).masked_fill(none, 0.0)

    def _counted(self, at: int) -> Tensor:
        """Whether a position has a right class [N, 1, …]."""
        return self.right[at].any(1, keepdim=True)


def distance(outputs: Sequence[Tensors]) -> Distance:
    """The label-free loss, given the float outputs of each batch."""
    powers = [torch.stack([z.double().square().sum() for z in each]).sum() for each in zip(*outputs, strict=True)]
    return Distance([_power(power) for power in powers])


def labelled(outputs: Sequence[Tensors], labels: Tensors) -> Loss:
    """The loss for labels, a tensor a batch as `Data.labels` has them, given the float outputs of each batch.

    Raises ConvkitError where they do not fit the first output.
    """
    pairs = [(out[0].detach().numpy(), wanted.numpy()) for out, wanted in zip(outputs, labels, strict=True)]
    if are_targets(pairs[0][1], pairs[0][0]):
        for output, wanted in pairs:
            same_shape(output, wanted, "the labels are")
        return SquaredError(labels, _power(torch.stack([one.double().square().sum() for one in labels]).sum()))
    axis = class_axis(pairs[0][0])
    require_classes(pairs[0][0], axis)
    found = [torch.from_numpy(acceptable(wanted, np.moveaxis(output, axis, -1))) for output, wanted in pairs]
    count = sum(int(one.any(-1).sum()) for one in found)
    return CrossEntropy([one.movedim(-1, 1) for one in found], max(count, 1), axis, probabilities(pairs[0][0], axis))


def _power(squares: Tensor) -> Tensor:
    """An output that is all zero still needs a power to divide by."""
    return squares.clamp(min=torch.finfo(torch.float32).tiny)


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, like.shape, generator=generator).to(like.dtype) * 2 - 1
