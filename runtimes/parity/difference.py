"""How far two arrays are apart, gathered over batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from convkit.compress.metric import decibels

if TYPE_CHECKING:
    import numpy as np


@dataclass(slots=True)
class Difference:
    """What was seen of reference and candidate so far; a shape that differs counts as nothing equal."""

    largest: float = 0.0
    peak: float = 0.0
    signal: float = 0.0
    noise: float = 0.0
    same: int = 0
    count: int = 0
    exact: bool = False
    """Whether they are integers or booleans, which are the same or not."""

    def add(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Take in one batch."""
        import numpy as np

        self.count += reference.size
        self.exact = reference.dtype.kind in "iub"
        if reference.shape != candidate.shape:
            self.largest = self.noise = float("inf")
            return
        self.same += int(np.count_nonzero(reference == candidate))
        if reference.dtype.kind == "f":
            self._add_floats(reference, candidate)

    def _add_floats(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        import numpy as np

        with np.errstate(invalid="ignore", over="ignore"):
            gap = reference - candidate
        if not np.isfinite(gap).all():  # the same infinity on both sides is no gap, NaN against a number is
            gap = np.where(reference == candidate, 0, np.where(np.isnan(gap), np.inf, gap))
        wanted = reference if np.isfinite(reference).all() else np.nan_to_num(reference, posinf=0, neginf=0)
        self.largest = max(self.largest, float(np.abs(gap).max(initial=0)))
        self.peak = max(self.peak, float(np.abs(wanted).max(initial=0)))
        self.signal += _energy(wanted)
        self.noise += _energy(gap)

    @property
    def equal(self) -> float:
        """Fraction of elements that are the same."""
        return self.same / self.count if self.count else 1.0

    @property
    def relative(self) -> float:
        """Largest difference over the reference's largest magnitude, at most 1e30: JSON has no infinity."""
        return min(self.largest / self.peak if self.peak else self.largest, _FARTHEST)

    @property
    def sqnr(self) -> float:
        """Signal to noise in dB, at most 200 either way."""
        return decibels(self.signal, self.noise)


_FARTHEST = 1e30


def _energy(array: np.ndarray) -> float:
    """Sum of squares, in float64 without a copy of that size."""
    import numpy as np

    flat = array.reshape(-1)
    return float(np.einsum("i,i->", flat, flat, dtype=np.float64))
