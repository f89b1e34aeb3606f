"""The extremes that were seen: nothing is clipped, outliers decide."""

from convkit.compress.calibrator import Calibrator, extremes

PART = Calibrator(find=lambda histogram, _: extremes(histogram))
