"""Tables of 256 values: any function of a number in eight bits, and the fusion of exposures by such tables.

Jiang et al., MEFLUT: Unsupervised 1D Lookup Tables for Multi-exposure Image Fusion, ICCV 2023, sections 3.1 and 3.4;
weights are made as large as the image by a fast guided filter (He and Sun, 2015).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.conv import Conv, Example

SIZE = 256
_TINY = 1e-8
_ROUNDING = 1e-4
"""Of a grey: more than float32 loses of one where luminance is a sum of colours."""


class Lut256(nn.Module):
    """table[round(x / scale) + zero_point] for every number of x, held within the table."""

    table: Tensor

    def __init__(self, table: Tensor, scale: float, zero_point: int = 0) -> None:
        super().__init__()
        if table.shape != (SIZE,):
            raise ValueError(f"a table has {SIZE} values, not {list(table.shape)}")
        self.register_buffer("table", table)
        self.scale, self.zero_point = scale, zero_point

    @classmethod
    def of(cls, function: Callable[[Tensor], Tensor], scale: float, zero_point: int = 0) -> Lut256:
        """What `function` makes of each of the 256 numbers."""
        return cls(function((torch.arange(SIZE) - zero_point) * scale), scale, zero_point)

    def forward(self, x: Tensor) -> Tensor:
        codes = ((x / self.scale).round() + self.zero_point).clamp(0, SIZE - 1)
        return self.table[codes.long()]


class MefLut(nn.Module):
    """frames [N, K, H, W] of luminance from 0 to 1, the same scene at K exposures, to one [N, 1, H, W].

    `table` [K, 256], which can be learnt: each exposure's weight by its luminance, from 0 to 1 (what is outside counts
    as the nearer of these), looked up in an image `shrunk` times as small. `eps` is added to a variance of luminance.
    Between two greys the darker one's weight is taken, as in the reference implementation. There 11 of the 256 greys
    themselves count as darker where luminance is summed of colours in float32: here a ten-thousandth may be missing.
    """

    def __init__(self, table: Tensor, *, shrunk: int = 1, radius: int = 2, eps: float = 1.0) -> None:
        super().__init__()
        if table.ndim != 2 or table.shape[1] != SIZE:  # noqa: PLR2004 - exposures, values
            raise ValueError(f"tables are [exposures, {SIZE}], not {list(table.shape)}")
        self.table = nn.Parameter(table)
        self.shrunk, self.radius, self.eps = shrunk, radius, eps

    def forward(self, frames: Tensor) -> Tensor:
        exposures = self.table.shape[0]
        if frames.shape[1] != exposures:
            raise ValueError(f"there are tables for {exposures} exposures, not for {frames.shape[1]}")
        low = frames if self.shrunk == 1 else F.interpolate(frames, scale_factor=1 / self.shrunk, mode="bilinear")
        rows = SIZE * torch.arange(exposures, device=frames.device).reshape(-1, 1, 1)
        greys = (low * (SIZE - 1) + _ROUNDING).floor().clamp(0, SIZE - 1)
        looked_up = self.table.clamp(0, 1).flatten()[greys.long() + rows]
        weights = self._widened(low, looked_up, frames).abs() + _TINY
        fused: Tensor = (weights / weights.sum(1, keepdim=True) * frames).sum(1, keepdim=True)
        return fused.clamp(0, 1)

    def _widened(self, low: Tensor, weights: Tensor, high: Tensor) -> Tensor:
        """`weights` of `low` for `high`: in each window they are the line through the luminance that fits best."""
        mean, middle = self._box(low), self._box(weights)
        slope = (self._box(low * weights) - mean * middle) / (self._box(low * low) - mean * mean + self.eps)
        level = middle - slope * mean
        if self.shrunk > 1:
            size = [int(edge) for edge in high.shape[2:]]
            slope, level = (F.interpolate(each, size, mode="bilinear", align_corners=True) for each in (slope, level))
        return slope * high + level

    def _box(self, x: Tensor) -> Tensor:
        """The mean of a window, of what of it lies inside."""
        return F.avg_pool2d(x, 2 * self.radius + 1, 1, self.radius, count_include_pad=False)


def _examples() -> Iterator[Example]:
    """A function as a table, and fusions at full size and of smaller tables."""
    yield Example(Lut256.of(F.gelu, 6 / SIZE, 128), {"x": (3, 5, 8)})
    yield Example(MefLut(1.5 * torch.rand(3, SIZE) - 0.25), {"frames": (3, 9, 12)})
    yield Example(MefLut(torch.rand(2, SIZE), shrunk=2, radius=1, eps=0.01), {"frames": (2, 12, 10)})


PART = Conv(
    paper="MEFLUT: Unsupervised 1D Lookup Tables for Multi-exposure Image Fusion (ICCV 2023)",
    tier="T1",
    layers=(Lut256, MefLut),
    examples=_examples,
    usual=lambda: Example(Lut256.of(F.gelu, 6 / SIZE, 128), {"x": (96, 56, 56)}),
    kept={"Gather": "a table's codes are eight bits already"},
)
