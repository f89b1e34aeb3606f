"""All but one in 10,000 of the values at either end."""

from convkit.compress.calibrator import Calibrator
from convkit.compress.format import Format
from convkit.compress.histogram import Histogram

_TAIL = 1e-4


def find(histogram: Histogram, _: Format) -> tuple[float, float]:
    """The central 1 - 2 * 10^-4 of the distribution, zero included."""
    return min(histogram.fraction_below(_TAIL), 0.0), max(histogram.fraction_below(1 - _TAIL), 0.0)


PART = Calibrator(find=find)
