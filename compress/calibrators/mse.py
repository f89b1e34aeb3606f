"""The interval with the least squared rounding and clipping error over the distribution."""

import torch

from convkit.compress.calibrator import Calibrator, cuts
from convkit.compress.format import Format
from convkit.compress.histogram import Histogram

_FRACTIONS = torch.linspace(0.3, 1.0, 71)


def find(histogram: Histogram, number: Format) -> tuple[float, float]:
    """The cut of the extremes with the least error."""
    used = histogram.counts > 0
    values, counts = histogram.centres[used], histogram.counts[used]
    lows, highs = cuts(histogram, _FRACTIONS)
    scale, zero = number.parameters(lows, highs)
    error = number.fake(values[None], scale[:, None], zero[:, None]) - values
    best = int((error.square() @ counts).argmin())
    return float(lows[best]), float(highs[best])


PART = Calibrator(about="least squared error", find=find)
