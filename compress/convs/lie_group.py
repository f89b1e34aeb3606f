"""Convolutions over groups of matrices: a kernel that a small network computes at places which group elements move.

Mironenco and Forré, Lie Group Decompositions for Equivariant Neural Networks, ICLR 2024, equations 19-26. Elements are
drawn once and kept in buffers; frozen, every layer is an ordinary convolution, and equivariant as far as they reach.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.conv import Conv, Example

_COORDINATES = 4
"""Of a matrix: an angle, and the logarithm of the stretch in front of it."""
_SLOPE = 2.0


def coordinates(matrices: Tensor) -> Tensor:
    """[..., 2, 2] of positive determinant to [..., 4]: the angle of the rotation R in R P, and log P's entries."""
    angle = torch.atan2(matrices[..., 1, 0] - matrices[..., 0, 1], matrices[..., 0, 0] + matrices[..., 1, 1])
    cos, sin = torch.cos(angle), torch.sin(angle)
    back = torch.stack((torch.stack((cos, sin), -1), torch.stack((-sin, cos), -1)), -2)
    stretch = back @ matrices
    half = (stretch[..., 0, 0] + stretch[..., 1, 1]) / 2
    apart = torch.sqrt((half.square() - torch.linalg.det(matrices)).clamp(min=0))
    # Of equal stretches the quotient is the derivative of the logarithm.
    steep = torch.where(apart > 1e-6 * half, torch.atanh(apart / half) / apart.clamp(min=1e-30), 1 / half)
    level = torch.log(torch.linalg.det(matrices)) / 2
    first, second = (level + steep * (stretch[..., i, i] - half) for i in (0, 1))
    return torch.stack((angle, first, steep * stretch[..., 0, 1], second), -1)


def places(size: int) -> Tensor:
    """Centres of a kernel's taps in a square from -1 to 1: [size, size, 2], x first. A single one lies at nothing."""
    line = (2 * torch.arange(size, dtype=torch.float64) + 1) / size - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack((x, y), -1)


class Siren(nn.Module):
    """Sines of linear layers, and a linear one behind: [P, features] to [P, made]."""

    def __init__(self, features: int, made: int, *, hidden: int = 64, layers: int = 2, w0: float = 10.0) -> None:
        super().__init__()
        self.w0 = w0
        sizes = [features, *[hidden] * (layers + 1)]
        self.net = nn.ModuleList(nn.Linear(read, out) for read, out in itertools.pairwise(sizes))
        self.final_linear = nn.Linear(hidden, made)
        for turn, layer in enumerate(self.net):
            bound = 1 / sizes[turn] if turn == 0 else math.sqrt(6 / sizes[turn]) / w0
            nn.init.uniform_(layer.weight, -bound, bound)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.net:
            x = torch.sin(self.w0 * layer(x))
        made: Tensor = self.final_linear(x)
        return made


class _Group(nn.Module):
    """`samples` [G, 2, 2] of the group, which `volume_preserving` ones leave areas as they are."""

    samples: Tensor

    def __init__(self, samples: Tensor, out_channels: int, kernel_size: int, padding: int) -> None:
        super().__init__()
        if samples.ndim != 3 or samples.shape[1:] != (2, 2) or not (torch.linalg.det(samples) > 0).all():  # noqa: PLR2004 - samples, rows, columns
            raise ValueError("a group of the plane has samples [G, 2, 2] of positive determinants")
        self.register_buffer("samples", samples)
        self.volume_preserving = bool((torch.linalg.det(samples) - 1).abs().max() < 1e-6)  # noqa: PLR2004 - float32
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.size, self.padding = kernel_size, padding

    def _moved(self) -> Tensor:
        """Places of the taps, moved by each sample's inverse: [G, k, k, 2]."""
        inverse: Tensor = torch.linalg.inv(self.samples.double())
        return places(self.size).to(inverse.device) @ inverse.mT.unsqueeze(1)

    def _mask(self, moved: Tensor, beside: Tensor) -> Tensor:
        """Taps beyond the circle count for nothing, or for less."""
        if self.volume_preserving:
            inside: Tensor = (moved.norm(dim=-1) <= 1).to(moved.dtype)
            return inside
        distance: Tensor = torch.cat((moved, beside), -1).norm(dim=-1)
        return torch.sigmoid(_SLOPE * (1 - distance))

    def _convolved(self, x: Tensor, kernel: Tensor) -> Tensor:
        """By a kernel [Cout, G, Cin, k, k]."""
        bias = self.bias.repeat_interleave(kernel.shape[1])
        return F.conv2d(x, kernel.flatten(0, 1).to(x.dtype), bias, padding=self.padding)


class LiftConv2d(_Group):
    """x [N, Cin, H, W] to [N, Cout G, H', W'], the samples of a channel together."""

    def __init__(
        self, samples: Tensor, in_channels: int, out_channels: int, kernel_size: int, *, padding: int = 0
    ) -> None:
        super().__init__(samples, out_channels, kernel_size, padding)
        self.inr = Siren(2, in_channels * out_channels)
        self.in_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        count, size = self.samples.shape[0], self.size
        moved = self._moved()
        values = self.inr(moved.reshape(-1, 2).to(x.dtype)).reshape(count, size, size, -1, self.in_channels)
        masked = values * self._mask(moved, moved[..., :0]).to(x.dtype)[..., None, None]
        area = 1 / torch.linalg.det(self.samples).abs() if not self.volume_preserving else torch.ones(count).to(x)
        return self._convolved(x, masked.permute(3, 0, 4, 1, 2) * area.reshape(-1, 1, 1, 1))


class GroupConv2d(_Group):
    """x [N, Cin G, H, W] to [N, Cout G, H', W'], the samples of a channel together."""

    def __init__(
        self, samples: Tensor, in_channels: int, out_channels: int, kernel_size: int, *, padding: int = 0
    ) -> None:
        super().__init__(samples, out_channels, kernel_size, padding)
        self.inr = Siren(2 + _COORDINATES, in_channels * out_channels)
        self.in_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        count, size, samples = self.samples.shape[0], self.size, self.samples.double()
        between = coordinates(torch.linalg.inv(samples).unsqueeze(1) @ samples)
        beside = between[:, :, None, None].expand(-1, -1, size, size, -1)
        moved = self._moved().unsqueeze(1).expand(-1, count, -1, -1, -1)
        whole = torch.cat((moved, beside), -1)
        values = self.inr(whole.reshape(-1, whole.shape[-1]).to(x.dtype))
        masked = (
            values.reshape(*whole.shape[:-1], -1, self.in_channels)
            * self._mask(moved, beside).to(x.dtype)[..., None, None]
        )
        kernel = masked.permute(4, 0, 5, 1, 2, 3)
        if not self.volume_preserving:
            kernel = kernel / torch.linalg.det(self.samples).abs().reshape(-1, 1, 1, 1, 1)
        return self._convolved(x, kernel.flatten(2, 3))


class GroupPool(nn.Module):
    """x [N, C G, H, W] to [N, C, H, W]: the largest over a group of `count` samples."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], -1, self.count, *x.shape[2:]).amax(2)


def _examples() -> Iterator[Example]:
    """Rotations, and matrices that stretch; a lift, a group convolution and a pool in a row."""
    turns = torch.tensor([0.0, 0.9, 2.2, -1.3])
    rotations = torch.stack((turns.cos(), -turns.sin(), turns.sin(), turns.cos()), -1).reshape(-1, 2, 2)
    stretches = torch.linalg.matrix_exp(0.4 * torch.randn(3, 2, 2))
    for samples, size in ((rotations, (9, 12)), (stretches, (8, 7))):
        count = samples.shape[0]
        layers = LiftConv2d(samples, 2, 3, 5, padding=2), GroupConv2d(samples, 3, 2, 3, padding=1), GroupPool(count)
        yield Example(_InRow(*layers), {"x": (2, *size)})


class _InRow(nn.Module):
    """Layers that are one part's, one behind the other."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.layers(x)
        return made


PART = Conv(
    paper="Lie Group Decompositions for Equivariant Neural Networks (ICLR 2024)",
    tier="T0",
    layers=(Siren, LiftConv2d, GroupConv2d, GroupPool),
    examples=_examples,
    usual=lambda: Example(LiftConv2d(torch.eye(2).repeat(10, 1, 1), 3, 32, 7, padding=3), {"x": (3, 32, 32)}),
)
