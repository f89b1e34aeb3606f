"""The interval whose quantized distribution tells most of the original: least Kullback-Leibler divergence."""

import numpy as np
import torch

from convkit.compress.calibrator import Calibrator, cuts
from convkit.compress.format import Format
from convkit.compress.histogram import Histogram

_FRACTIONS = torch.linspace(0.4, 1.0, 25)
_TINY = 1e-12

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def find(histogram: Histogram, number: Format) -> tuple[float, float]:
    """The cut of the extremes with the least divergence KL(clipped original || spread-out codes)."""
    choices = list(zip(*(ends.tolist() for ends in cuts(histogram, _FRACTIONS)), strict=True))
    divergences = [_divergence(histogram, number, low, high) for low, high in choices]
    low, high = choices[int(np.argmin(divergences))]
    return low, high


def _divergence(histogram: Histogram, number: Format, low: float, high: float) -> float:
    scale, zero = number.parameters(torch.tensor(low), torch.tensor(high))
    centres, counts = histogram.centres.numpy(), histogram.counts.numpy()
    first, last = np.searchsorted(centres, (low - histogram.width, high + histogram.width))
    held = counts[first:last]
    if held.sum() == 0:
        return float("inf")
    nearest = number.fake(histogram.centres[first:last], scale, zero).numpy()
    values, codes = np.unique(nearest, return_inverse=True)
    clipped = held.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last:].sum()
    return _kl(clipped, _spread(held, codes, len(values)))


def _spread(held: Array, codes: np.ndarray, levels: int) -> Array:
    """Each code's count spread evenly over the bins in use that share it."""
    used = (held > 0).astype(np.float64)
    total = np.bincount(codes, held, levels)
    bins = np.bincount(codes, used, levels)
    return np.asarray(used * (total / np.maximum(bins, 1))[codes])


def _kl(p: Array, q: Array) -> float:
    p, q = p / p.sum(), q / q.sum()
    seen = p > 0
    return float(np.sum(p[seen] * np.log((p[seen] + _TINY) / (q[seen] + _TINY))))


PART = Calibrator(find=find)
