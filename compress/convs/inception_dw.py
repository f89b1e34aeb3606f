"""Inception depthwise convolution: most channels stay as they are, the others meet a square and two band kernels.

Yu et al., InceptionNeXt: When Inception Meets ConvNeXt, CVPR 2024, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from convkit.compress.conv import Conv, Example


class InceptionDWConv2d(nn.Module):
    """x [N, C, H, W] in parts of C - 3g, g, g, g channels, g = int(C * branch_ratio): as they are, square, a row of
    `band_kernel_size`, a column of it. Names are those of the reference implementation.
    """

    def __init__(
        self, in_channels: int, square_kernel_size: int = 3, band_kernel_size: int = 11, branch_ratio: float = 0.125
    ) -> None:
        super().__init__()
        part = int(in_channels * branch_ratio)
        if not 0 < 3 * part <= in_channels:
            raise ValueError(f"{in_channels} channels at a ratio of {branch_ratio:g} leave parts of {part}")
        square, band = square_kernel_size, band_kernel_size
        if square % 2 == 0 or band % 2 == 0:
            raise ValueError(f"the parts keep their size: kernels are odd, not {square} and {band}")
        self.dwconv_hw = nn.Conv2d(part, part, square, padding=square // 2, groups=part)
        self.dwconv_w = nn.Conv2d(part, part, (1, band), padding=(0, band // 2), groups=part)
        self.dwconv_h = nn.Conv2d(part, part, (band, 1), padding=(band // 2, 0), groups=part)
        self.parts = [in_channels - 3 * part, part, part, part]

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != sum(self.parts):  # noqa: PLR2004 - NCHW
            raise ValueError(f"InceptionDWConv2d takes [N, {sum(self.parts)}, H, W], not {list(x.shape)}")
        same, square, row, column = torch.split(x, self.parts, dim=1)
        return torch.cat((same, self.dwconv_hw(square), self.dwconv_w(row), self.dwconv_h(column)), dim=1)


def _examples() -> Iterator[Example]:
    """The paper's ratio, that of its smallest network, and one that leaves no channel alone."""
    yield Example(InceptionDWConv2d(16), {"x": (16, 13, 18)})
    yield Example(InceptionDWConv2d(12, band_kernel_size=9, branch_ratio=0.25), {"x": (12, 7, 10)})
    yield Example(InceptionDWConv2d(6, 5, 7, branch_ratio=1 / 3), {"x": (6, 8, 8)})


PART = Conv(
    paper="InceptionNeXt: When Inception Meets ConvNeXt (CVPR 2024)",
    tier="T1",
    layers=(InceptionDWConv2d,),
    examples=_examples,
    usual=lambda: Example(InceptionDWConv2d(96), {"x": (96, 56, 56)}),
)
