"""A tensor's distribution, gathered batch by batch in constant memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 4096
_MOST = 1 << 16
"""Elements of one tensor counted per batch: more would not change a range and cost seconds per network."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts [BINS] of equal bins of `width` around zero (bin BINS/2 starts at 0), and the exact extremes."""

    counts: Tensor
    width: float
    low: float
    high: float

    @property
    def centres(self) -> Tensor:
        """Middle of each bin, float64 [BINS]."""
        return (torch.arange(BINS, dtype=torch.float64) - BINS // 2 + 0.5) * self.width

    def fraction_below(self, fraction: float) -> float:
        """The value below which `fraction` of the elements lie, to a bin's precision, inside the extremes."""
        cumulated = self.counts.cumsum(0)
        index = int(torch.searchsorted(cumulated, fraction * float(cumulated[-1])))
        return min(max((index + 1 - BINS // 2) * self.width, self.low), self.high)


class NotFiniteError(ValueError):
    """A tensor holds NaN or infinity."""


def gather(x: Tensor, before: Histogram | None = None) -> Histogram:
    """`before` with the elements of `x` added; bins double in width until everything fits.

    Raises NotFiniteError: the extremes tell, for NaN anywhere makes both of them NaN.
    """
    flat = x.detach().reshape(-1)
    low, high = (float(extreme) for extreme in torch.aminmax(flat))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise NotFiniteError
    if before is not None:
        low, high = min(low, before.low), max(high, before.high)
    reach = max(-low, high, torch.finfo(torch.float32).tiny * BINS)
    counts = torch.zeros(BINS, dtype=torch.float64) if before is None else before.counts
    width = 2.0 * reach / BINS * (1 + 1e-6) if before is None or before.width == 0 else before.width
    while reach >= width * BINS / 2:
        counts, width = _halved(counts), width * 2
    half = width * BINS / 2
    # In double: the bins of a tensor near float32's largest number reach beyond it.
    sampled = flat[:: -(-flat.numel() // _MOST)].double()
    return Histogram(counts + torch.histc(sampled, BINS, -half, half), width, low, high)


def _halved(counts: Tensor) -> Tensor:
    """The same counts in bins twice as wide, still centred on zero."""
    merged = counts.reshape(-1, 2).sum(1)
    empty = torch.zeros(BINS // 4, dtype=counts.dtype)
    return torch.cat([empty, merged, empty])
