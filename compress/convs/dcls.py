"""DCLS: dilated convolution with learnable spacings, a dense kernel that a few elements at real places are spread into.

Khalfaoui-Hassani et al., Dilated Convolution with Learnable Spacings, ICLR 2023 (v0, v1), and Beyond Bilinear
Interpolation, 2023 (max, gauss). Trained, it is an ordinary convolution with that kernel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.conv import Conv, Example

VERSIONS = ("v0", "v1", "max", "gauss")
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_LEAST = {"max": 1.0, "gauss": 0.27}
"""What |SIG| is widened by."""
_TINY = 1e-7
_V0_AXES = {1: (0,), 2: (0, 1), 3: (0, 2, 1)}
"""Of the kernel, along which positions of v0 lie, as in the reference implementation."""


def kernel(weight: Tensor, positions: Tensor, sigma: Tensor | None, size: Sequence[int], version: str) -> Tensor:
    """The dense kernel [Cout, Cin / g, *size] of elements `weight` [Cout, Cin / g, m] at `positions` [d, Cout, Cin / g,
    m] from the centre; `sigma`, of the same shape, widens them in versions max and gauss.

    Positions of v0 are given row first, in volumes depth, column, row. The others give the last axis first and are
    centred by the first one's size, as in the reference implementation, whose weights they come from: kernels that are
    not square are off-centre.
    """
    rank, spread = len(size), torch.ones((), dtype=weight.dtype, device=weight.device)
    axes = _V0_AXES[rank] if version == "v0" else range(rank - 1, -1, -1)
    for turn, axis in enumerate(axes):
        place = positions[turn] + size[turn] // 2
        distance = torch.arange(size[axis], dtype=weight.dtype, device=weight.device) - place.unsqueeze(-1)
        width = None if sigma is None else sigma[turn].unsqueeze(-1).abs() + _LEAST[version]
        spread = spread * _on_axis(_spread(distance, width, version), axis, rank)
    if version != "v0":
        spread = spread / (spread.sum(tuple(range(-rank, 0)), keepdim=True) + _TINY)
    return (weight.reshape(*weight.shape, *[1] * rank) * spread).sum(2)


def _spread(distance: Tensor, width: Tensor | None, version: str) -> Tensor:
    """How much of an element lies at each `distance` along one axis."""
    if width is None:
        return (1 - distance.abs()).relu()
    if version == "gauss":
        return torch.exp(-0.5 * (distance / width).square())
    return (width - distance.abs()).relu()


def _on_axis(along: Tensor, axis: int, rank: int) -> Tensor:
    """[…, size] as […, 1, size, 1] with `size` on spatial axis `axis`."""
    shape = [1] * rank
    shape[axis] = along.shape[-1]
    return along.reshape(*along.shape[:-1], *shape)


class _Dcls(nn.Module):
    """Parameters are called as in the reference implementation: weight, P, SIG, bias."""

    rank: int
    """Spatial axes."""

    def __init__(  # noqa: PLR0913 - torch's convolutions take as many
        self,
        in_channels: int,
        out_channels: int,
        kernel_count: int,
        *,
        dilated_kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        version: str = "v1",
    ) -> None:
        super().__init__()
        rank = self.rank
        if version not in VERSIONS:
            raise ValueError(f"DCLS has no version {version!r}, only {', '.join(VERSIONS)}")
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"{in_channels} and {out_channels} channels do not part into {groups} groups")
        self.size = _each(dilated_kernel_size, rank)
        if len(self.size) != rank or kernel_count < 1:
            raise ValueError(f"Dcls{rank}d takes a size along {rank} axes and an element or more, "
                             f"not {self.size} and {kernel_count}")  # fmt: skip
        self.stride, self.padding, self.dilation = _each(stride, rank), _each(padding, rank), _each(dilation, rank)
        self.groups, self.version = groups, version
        shape = (out_channels, in_channels // groups, kernel_count)
        self.weight = nn.Parameter(torch.empty(shape))
        self.P = nn.Parameter(torch.empty(rank, *shape))
        if version in _LEAST:
            self.SIG = nn.Parameter(torch.full((rank, *shape), 0.23 if version == "gauss" else 0.0))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        for axis, size in enumerate(self.size):
            nn.init.trunc_normal_(self.P[axis], std=size / 4, a=-(size // 2), b=size // 2)

    def kernel(self) -> Tensor:
        """The dense kernel that its parameters stand for."""
        return kernel(self.weight, self.P, getattr(self, "SIG", None), self.size, self.version)

    def forward(self, x: Tensor) -> Tensor:
        rank = len(self.size)
        if x.ndim != rank + 2:
            raise ValueError(f"Dcls{rank}d takes [N, C, {'…' if rank > 1 else 'L'}] of {rank + 2} axes, not {x.ndim}")
        made: Tensor = _CONV[rank](x, self.kernel(), self.bias, self.stride, self.padding, self.dilation, self.groups)
        return made


def _each(given: int | Sequence[int], rank: int) -> tuple[int, ...]:
    return (given,) * rank if isinstance(given, int) else tuple(given)


class Dcls1d(_Dcls):
    """x [N, Cin, L]."""

    rank = 1


class Dcls2d(_Dcls):
    """x [N, Cin, H, W]."""

    rank = 2


class Dcls3d(_Dcls):
    """x [N, Cin, D, H, W]."""

    rank = 3


def _examples() -> Iterator[Example]:
    """Every version and rank; kernels that are not square, groups, strides, odd and even sizes."""
    sizes = {1: (7,), 2: (7, 5), 3: (3, 5, 3)}
    images = {1: (17,), 2: (13, 18), 3: (5, 8, 7)}
    for rank, layer in enumerate((Dcls1d, Dcls2d, Dcls3d), 1):
        for version in VERSIONS:
            made = layer(4, 6, 3, dilated_kernel_size=sizes[rank], padding=tuple(s // 2 for s in sizes[rank]),
                         groups=2, stride=1 + (version == "max"), version=version)  # fmt: skip
            yield Example(made, {"x": (4, *images[rank])})


PART = Conv(
    paper="Dilated Convolution with Learnable Spacings (ICLR 2023)",
    tier="T0",
    layers=(Dcls1d, Dcls2d, Dcls3d),
    examples=_examples,
    usual=lambda: Example(Dcls2d(96, 96, 26, dilated_kernel_size=17, padding=8, groups=96), {"x": (96, 56, 56)}),
)
