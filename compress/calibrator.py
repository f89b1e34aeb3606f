"""A range calibrator: from a tensor's distribution to the interval its codes cover. Parts in `compress/calibrators`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from convkit.compress.format import Format
from convkit.compress.histogram import Histogram


@dataclass(frozen=True, slots=True)
class Calibrator:
    """`find` returns (low, high), with low <= 0 <= high."""

    find: Callable[[Histogram, Format], tuple[float, float]]


def cuts(histogram: Histogram, fractions: Tensor) -> tuple[Tensor, Tensor]:
    """Lows and highs to choose from: both extremes at each of the fractions, and, where one is longer, that one alone.

    One outlier on one side must not cost the other side its end.
    """
    low, high = extremes(histogram)
    lows, highs = fractions.double() * low, fractions.double() * high
    if 0 in (low, high):
        return lows, highs
    longest = fractions.double() * max(-low, high)
    return torch.cat([lows, (-longest).clamp(min=low)]), torch.cat([highs, longest.clamp(max=high)])


def extremes(histogram: Histogram) -> tuple[float, float]:
    """Smallest and largest value seen, widened to hold zero."""
    return min(histogram.low, 0.0), max(histogram.high, 0.0)
