"""A range calibrator: from a tensor's distribution to the interval its codes cover. Parts in `compress/calibrators`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from convkit.compress.format import Format
from convkit.compress.histogram import Histogram


@dataclass(frozen=True, slots=True)
class Calibrator:
    """`find` returns (low, high), with low <= 0 <= high."""

    about: str
    find: Callable[[Histogram, Format], tuple[float, float]]


def extremes(histogram: Histogram) -> tuple[float, float]:
    """Smallest and largest value seen, widened to hold zero."""
    return min(histogram.low, 0.0), max(histogram.high, 0.0)
