"""Groups of the plane's matrices: which matrices are theirs, and their coordinates.

Mironenco and Forré, Lie Group Decompositions for Equivariant Neural Networks, ICLR 2024, section 4 and appendix B.7.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

DIMENSIONS = {"so2": 1, "sl2": 3, "gl2": 4}
"""Of each kind of group: rotations, matrices of determinant 1, matrices of a positive one."""
_NO_TURN, NEAR = 1e-6, 1e-4
"""A sine that is none, and how near matrices in float32 that are to be equal come to each other."""


def coordinates(matrices: Tensor, kind: str = "gl2", metric_alpha: float = 1.0) -> Tensor:
    """[..., 2, 2] of a group to its coordinates [..., DIMENSIONS[kind]], of P R with P symmetric and R a rotation.

    They are R's angle from 0 to 2 pi and L = log P, orthonormal by the metric alpha tr(A^T B): (angle) of SO(2),
    (L01, angle, L00) of SL(2), (L00, L01, L11, angle) of GL(2).
    """
    angle = torch.atan2(matrices[..., 1, 0] - matrices[..., 0, 1], matrices[..., 0, 0] + matrices[..., 1, 1])
    turn = _positive(angle)
    if kind == "so2":
        return turn.unsqueeze(-1)
    first, beside, second = _log_stretch(matrices, angle)
    diagonal, off = metric_alpha**0.5, (2 * metric_alpha) ** 0.5
    if kind == "sl2":
        return torch.stack((off * beside, turn, off * first), -1)
    return torch.stack((diagonal * first, off * beside, diagonal * second, turn), -1)


def _positive(angle: Tensor) -> Tensor:
    """From 0 to 2 pi; what rounding has left of no turn is none, and not a whole one."""
    sin, cos = torch.sin(angle), torch.cos(angle)
    angle = torch.atan2(torch.where(sin.abs() < _NO_TURN, 0.0, sin), cos)
    return torch.where(angle < 0, angle + 2 * math.pi, angle)


def _log_stretch(matrices: Tensor, angle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log P's entries 00, 01 and 11."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    back = torch.stack((torch.stack((cos, sin), -1), torch.stack((-sin, cos), -1)), -2)
    stretch = matrices @ back
    half = (stretch[..., 0, 0] + stretch[..., 1, 1]) / 2
    apart = torch.sqrt((half.square() - torch.linalg.det(matrices)).clamp(min=0))
    # Of equal stretches the quotient is the derivative of the logarithm.
    steep = torch.where(apart > 1e-6 * half, torch.atanh(apart / half) / apart.clamp(min=1e-30), 1 / half)
    level = torch.log(torch.linalg.det(matrices)) / 2
    first, second = (level + steep * (stretch[..., i, i] - half) for i in (0, 1))
    return first, steep * stretch[..., 0, 1], second


def check(samples: Tensor, kind: str) -> None:
    """Raises ValueError for what is no group of the kind."""
    if kind not in DIMENSIONS:
        raise ValueError(f"there is no group {kind!r}; kind is one of {', '.join(DIMENSIONS)}")
    if samples.ndim != 3 or samples.shape[1:] != (2, 2) or not (torch.linalg.det(samples) > 0).all():  # noqa: PLR2004 - samples, rows, columns
        raise ValueError("a group of the plane has samples [G, 2, 2] of positive determinants")
    if kind == "sl2" and not _keep_areas(samples):
        raise ValueError("samples of sl2 have determinants of 1; others are gl2's")
    if kind == "so2" and not _only_turn(samples):
        raise ValueError("samples of so2 are rotations; others are sl2's or gl2's")


def least_kind(samples: Tensor) -> str:
    """The smallest group that has all samples [G, 2, 2]."""
    if samples.ndim != 3 or samples.shape[1:] != (2, 2):  # noqa: PLR2004 - `check` tells
        return "gl2"
    if _only_turn(samples):
        return "so2"
    return "sl2" if _keep_areas(samples) else "gl2"


def _keep_areas(samples: Tensor) -> bool:
    size = samples.square().sum((1, 2))
    return bool(((torch.linalg.det(samples.double()) - 1).abs() <= NEAR * size).all())


def _only_turn(samples: Tensor) -> bool:
    return equal(samples @ samples.mT, torch.eye(2).to(samples).expand_as(samples)) and _keep_areas(samples)


def equal(first: Tensor, second: Tensor) -> bool:
    """But for the rounding of float32."""
    return first.shape == second.shape and torch.allclose(first.double(), second.to(first).double(), NEAR, NEAR)


def inverse(samples: Tensor) -> Tensor:
    """Of each, in float64 on the way."""
    found: Tensor = torch.linalg.inv(samples.double())
    return found.to(samples.dtype)


def kind_of(state: Mapping[str, Tensor]) -> str | None:
    """Which group a state of rgenn holds, by the size of its basis."""
    if "group.basis_matrix" in state:
        return "so2"
    size = state["group.basis.basis_matrix"].shape[0] if "group.basis.basis_matrix" in state else None
    return next((kind for kind, own in DIMENSIONS.items() if own == size), None)
