"""Deformable convolution: each tap of a kernel reads where the image itself says, and its hardware-friendly variants.

Dai et al., Deformable Convolutional Networks, ICCV 2017, equation 2; Zhu et al., v2, CVPR 2019, equation 1 (a mask of
each tap). Bounded, square and rounded offsets and the depthwise block: Huang et al., CoDeNet, FPGA 2021, section 3.
Taps are read first and multiplied behind as a convolution of one position, which runs in low precision as any other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.conv import Conv, Example

_SPATIAL = 2


def read_taps(x: Tensor, offset: Tensor, kernel: Sequence[int], stride: int, padding: int, dilation: int) -> Tensor:
    """x [N, C, H, W] at every tap, moved by `offset` [N, 2 G K, Ho, Wo] (rows and columns by turns, for each of G parts
    of the channels): [N, C, K, Ho, Wo]. It is bilinear between pixels, and nothing outside.
    """
    batch, channels, height, width = x.shape
    taps = math.prod(kernel)
    parts = offset.shape[1] // (2 * taps)
    size = [(edge + 2 * padding - dilation * (k - 1) - 1) // stride + 1
            for edge, k in zip((height, width), kernel, strict=True)]  # fmt: skip
    if offset.shape[1] % (2 * taps) or channels % parts or list(offset.shape[2:]) != size:
        wanted = f"[N, {2 * taps} for each part of {channels} channels, {size[0]}, {size[1]}]"
        raise ValueError(f"the offsets of a deformable convolution are {wanted}, not {list(offset.shape)}")
    rows, columns = (
        torch.arange(count, dtype=x.dtype, device=x.device) * stride - padding for count in size
    )  # fmt: skip
    moved = offset.reshape(batch * parts, taps, 2, *size)
    split = x.reshape(batch * parts, channels // parts, height, width)
    read = []
    for tap in range(taps):
        row, column = divmod(tap, kernel[1])
        y = moved[:, tap, 0] + rows.reshape(-1, 1) + row * dilation
        z = moved[:, tap, 1] + columns + column * dilation
        # Places of pixels' centres where the image goes from -1 to 1: of one pixel there are no corners to align.
        grid = torch.stack(((2 * z + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
        read.append(F.grid_sample(split, grid, "bilinear", "zeros", align_corners=False))
    return torch.stack(read, dim=2).reshape(batch, channels, taps, *size)


class DeformConv2d(nn.Module):
    """x [N, Cin, H, W], offset as `read_taps` takes it and, modulated, mask [N, G K, Ho, Wo]. `weight` [Cout, Cin /
    groups, kh, kw] and `bias` are those of torchvision's layer of this name.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"{in_channels} and {out_channels} channels do not part into {groups} groups")
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        taps = read_taps(x, offset, self.weight.shape[_SPATIAL:], self.stride, self.padding, self.dilation)
        return weighed(taps, self.weight, self.bias, self.groups, mask)


def weighed(taps: Tensor, weight: Tensor, bias: Tensor | None, groups: int = 1, mask: Tensor | None = None) -> Tensor:
    """The convolution of `taps` [N, C, K, Ho, Wo] that `read_taps` has read."""
    if mask is not None:
        count = taps.shape[2]
        masked = taps.reshape(taps.shape[0], mask.shape[1] // count, -1, *taps.shape[2:])
        taps = (masked * mask.reshape(taps.shape[0], -1, 1, count, *mask.shape[2:])).reshape(taps.shape)
    flat = weight.reshape(weight.shape[0], -1, 1, 1)
    return F.conv2d(taps.flatten(1, 2), flat, bias, groups=groups)


class DeformBlock(nn.Module):
    """x [N, C, H, W] with offsets that a convolution finds. `bound`: they stay within so many pixels. `square`: one
    number s for each place, from 0 to the bound, that widens the whole kernel: a dilation of 1 + s. `rounded`: to whole
    pixels. `depthwise`: channels are mixed first, by a convolution of one position, and each then has its own kernel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bound: float | None = None,
        square: bool = False,
        rounded: bool = False,
        depthwise: bool = False,
        modulated: bool = False,
    ) -> None:
        super().__init__()
        if square and (bound is None or modulated):
            raise ValueError("square offsets have a bound and no mask")
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1) if depthwise else None
        read, size = (out_channels, 1) if depthwise else (in_channels, 3)
        found = 1 if square else 27 if modulated else 18
        self.offset = nn.Conv2d(read, found, size, padding=size // 2)
        self.conv = DeformConv2d(read, out_channels, (3, 3), padding=1, groups=read if depthwise else 1)
        self.bound, self.square, self.rounded = bound, square, rounded

    def forward(self, x: Tensor) -> Tensor:
        if self.pointwise is not None:
            x = self.pointwise(x)
        found = self.offset(x)
        offset, mask = found[:, :18], found[:, 18:]
        if self.bound is not None:
            offset = offset.clamp(0.0 if self.square else -self.bound, self.bound)
        if self.rounded:
            offset = offset.round()
        if self.square:
            steps = torch.tensor([-1.0, 0.0, 1.0], dtype=x.dtype, device=x.device)
            corners = torch.cartesian_prod(steps, steps).reshape(1, -1, 1, 1)
            offset = offset * corners
        made: Tensor = self.conv(x, offset, mask.sigmoid() if found.shape[1] > 18 else None)  # noqa: PLR2004 - modulated
        return made


def _examples() -> Iterator[Example]:
    """The layer with groups, strides and masks, and every variant of the block; offsets reach beyond the image."""
    yield Example(DeformConv2d(4, 6, (3, 3), padding=1), {"x": (4, 7, 9), "offset": (18, 7, 9)})
    layer = DeformConv2d(4, 6, (2, 3), stride=2, padding=1, groups=2)
    yield Example(layer, {"x": (4, 8, 9), "offset": (24, 5, 5), "mask": (12, 5, 5)})
    for options in ({}, {"bound": 2.0}, {"bound": 3.0, "square": True}, {"rounded": True}, {"modulated": True},
                    {"bound": 3.0, "square": True, "rounded": True, "depthwise": True}):  # fmt: skip
        block = DeformBlock(4, 5, **options)
        nn.init.normal_(block.offset.weight, std=0.5)
        yield Example(block, {"x": (4, 7, 10)})


_PLACES = "an offset is a place: a step of eight bits is more than a pixel"
PART = Conv(
    paper="Deformable Convolutional Networks (ICCV 2017) and CoDeNet (FPGA 2021)",
    tier="T1",
    layers=(DeformConv2d, DeformBlock),
    examples=_examples,
    usual=lambda: Example(DeformBlock(32, 32, bound=8.0), {"x": (32, 32, 32)}),
    kept={"GridSample": _PLACES, "offset": _PLACES},
)
