"""The interval whose quantized distribution tells most of the original: least Kullback-Leibler divergence."""

import torch
from convkit.compress.calibrator import Calibrator, extremes
from convkit.compress.format import Format
from convkit.compress.histogram import Histogram
from torch import Tensor

_FRACTIONS = torch.linspace(0.3, 1.0, 36)
_TINY = 1e-12


def find(histogram: Histogram, number: Format) -> tuple[float, float]:
    """The fraction of the extremes with the least divergence KL(clipped original || spread-out codes)."""
    low, high = extremes(histogram)
    divergences = [_divergence(histogram, number, float(f) * low, float(f) * high) for f in _FRACTIONS]
    best = float(_FRACTIONS[int(torch.tensor(divergences).argmin())])
    return best * low, best * high


def _divergence(histogram: Histogram, number: Format, low: float, high: float) -> float:
    scale, zero = number.parameters(torch.tensor(low), torch.tensor(high))
    centres = histogram.centres
    inside = (centres >= low - histogram.width) & (centres <= high + histogram.width)
    held = histogram.counts[inside]
    if held.numel() == 0 or float(held.sum()) == 0:
        return float("inf")
    codes = (torch.round(centres[inside] / scale) + zero).clamp(number.low, number.high).long() - number.low
    clipped = held.clone()
    clipped[0] += histogram.counts[centres < centres[inside][0]].sum()
    clipped[-1] += histogram.counts[centres > centres[inside][-1]].sum()
    return _kl(clipped, _spread(held, codes, number.high - number.low + 1))


def _spread(held: Tensor, codes: Tensor, levels: int) -> Tensor:
    """Each code's count spread evenly over the bins in use that share it."""
    used = (held > 0).double()
    total = torch.zeros(levels, dtype=torch.float64).index_add_(0, codes, held)
    bins = torch.zeros(levels, dtype=torch.float64).index_add_(0, codes, used)
    return used * (total / bins.clamp(min=1))[codes]


def _kl(p: Tensor, q: Tensor) -> float:
    p, q = p / p.sum(), q / q.sum()
    return float((p * ((p + _TINY) / (q + _TINY)).log())[p > 0].sum())


PART = Calibrator(about="least Kullback-Leibler divergence", find=find)
