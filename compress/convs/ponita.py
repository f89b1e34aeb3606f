"""Convolutions over positions and orientations: separable, with kernels of what rotations and shifts leave as it is.

Bekkers et al., Fast, Expressive SE(n) Equivariant Networks through Weight-Sharing in Position-Orientation Space, ICLR
2024, equations 7 and 12-15. All pairs of a small cloud are looked at, weighed by how near they are; kernels between
orientations depend on their grid alone, and are constants.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.conv import Conv, Example

_STEEP = 6


def polynomials(x: Tensor, degree: int) -> Tensor:
    """[..., F] to all products of up to `degree` factors: [..., F + F² + …]."""
    powers = [x]
    for _ in range(1, degree):
        powers.append((powers[-1].unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2))
    return torch.cat(powers, -1)


def near(distance: Tensor, radius: float) -> Tensor:
    """1 at no distance, falling smoothly to 0 at `radius` (Gasteiger et al., 2020, equation 8)."""
    part, p = distance / radius, _STEEP
    fallen = 1 - (p + 1) * (p + 2) / 2 * part**p + p * (p + 2) * part ** (p + 1) - p * (p + 1) / 2 * part ** (p + 2)
    return fallen * (part < 1).to(distance.dtype)


class PonitaConv(nn.Module):
    """x [N, V, O, C] at `positions` [N, V, 3] and the `orientations` [O, 3] it was made for. Names are those of the
    reference implementation; weights of a training that has begun are as it rescaled them.
    """

    orientations: Tensor

    def __init__(
        self, orientations: Tensor, channels: int, basis: int, *, degree: int = 3, radius: float = 5.0
    ) -> None:
        super().__init__()
        self.register_buffer("orientations", orientations)
        self.basis_fn = _basis(sum(2**power for power in range(1, degree + 1)), basis)
        self.fiber_basis_fn = _basis(degree, basis)
        self.kernel_spatial = nn.Linear(basis, channels, bias=False)
        self.kernel_spherical = nn.Linear(basis, channels, bias=False)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.degree, self.radius = degree, radius

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        apart = positions.unsqueeze(1) - positions.unsqueeze(2)
        along = apart @ self.orientations.T
        across = (apart.unsqueeze(-2) - along.unsqueeze(-1) * self.orientations).norm(dim=-1)
        basis = self.basis_fn(polynomials(torch.stack((along, across), -1), self.degree))
        weights = near(apart.norm(dim=-1), self.radius)[..., None, None]
        spatial = self.kernel_spatial(basis * weights)
        gathered = (spatial * x.unsqueeze(1)).sum(2)
        mixed = (gathered.unsqueeze(3) * self._spherical()).sum(2)
        made: Tensor = mixed / self.orientations.shape[0] + self.bias
        return made

    def _spherical(self) -> Tensor:
        """The kernel between orientations: [O, O, C]."""
        between = (self.orientations @ self.orientations.T).unsqueeze(-1)
        found: Tensor = self.kernel_spherical(self.fiber_basis_fn(polynomials(between, self.degree)))
        return found


def _basis(read: int, made: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(read, made), nn.GELU(), nn.Linear(made, made), nn.GELU())


class PonitaBlock(nn.Module):
    """As PonitaConv takes it: a convolution, and two linear layers over channels beside x."""

    def __init__(self, orientations: Tensor, channels: int, basis: int, *, widening_factor: int = 4) -> None:
        super().__init__()
        self.conv = PonitaConv(orientations, channels, basis)
        self.norm = nn.LayerNorm(channels)
        self.linear_1 = nn.Linear(channels, widening_factor * channels)
        self.linear_2 = nn.Linear(widening_factor * channels, channels)
        self.layer_scale = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        made: Tensor = self.linear_2(F.gelu(self.linear_1(self.norm(self.conv(x, positions)))))
        return x + self.layer_scale * made


def _examples() -> Iterator[Example]:
    """A convolution alone and a block, clouds of different sizes."""
    orientations = F.normalize(torch.randn(6, 3), dim=-1)
    yield Example(PonitaConv(orientations, 4, 5), {"x": (5, 6, 4), "positions": (5, 3)})
    block = PonitaBlock(orientations[:4], 8, 6)
    nn.init.normal_(block.layer_scale)
    yield Example(block, {"x": (7, 4, 8), "positions": (7, 3)})


_PLACES = "it is computed of positions, whose steps are finer than eight bits"
PART = Conv(
    paper="PONITA: Fast, Expressive SE(n) Equivariant Networks (ICLR 2024)",
    tier="T3",
    layers=(PonitaConv, PonitaBlock),
    examples=_examples,
    usual=lambda: Example(
        PonitaBlock(F.normalize(torch.randn(20, 3), dim=-1), 16, 16), {"x": (16, 20, 16), "positions": (16, 3)}
    ),
    kept={
        "basis_fn.*": _PLACES,
        "Pow": _PLACES,
        "LayerNormalization": "it scales every channel: its error is the whole map's",
    },
)
