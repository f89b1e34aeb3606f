"""The interval with the least squared rounding and clipping error over the distribution."""

import torch

from convkit.compress.calibrator import Calibrator, cuts
from convkit.compress.format import Format, Integer
from convkit.compress.histogram import Histogram

_FRACTIONS = torch.linspace(0.3, 1.0, 71)
"""For integers of 8 bits and more: activations have longer tails than weights, which `Format.fractions` suit."""
_BYTE = 8


def find(histogram: Histogram, number: Format) -> tuple[float, float]:
    """The cut of the extremes with the least error."""
    used = histogram.counts > 0
    values, counts = histogram.centres[used], histogram.counts[used]
    wide = isinstance(number, Integer) and number.bits >= _BYTE
    lows, highs = cuts(histogram, _FRACTIONS if wide else number.fractions())
    scale, zero = number.parameters(lows, highs)
    error = number.fake(values[None], scale[:, None], zero[:, None]) - values
    best = int((error.square() @ counts).argmin())
    return float(lows[best]), float(highs[best])


PART = Calibrator(find=find)
