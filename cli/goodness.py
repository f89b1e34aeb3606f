"""When a quantized network is as good as the one it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from convkit.compress import metric

FEW = 20
"""Fewer held-back samples than this tell nothing about a drop of a few percent: SQNR alone decides."""
_HANDFUL = 4
"""Fewer held-back samples than this tell little of SQNR as well: one image may be easy, and where none is held back
the biases were fitted to it."""
_UNLIKELY = 0.05
_DB_A_POINT = 0.2
"""What a point of accuracy is to a network of images: 5 points of agreement weigh like one dB of PSNR."""
_CLASSES_DB, _SIGNAL_DB = 10.0, 20.0


@dataclass(frozen=True, slots=True)
class Limits:
    """When a quantized network is as good: points of agreement or accuracy lost at most (fifths of a dB of PSNR where
    the outputs are images with targets), dB of SQNR at least.

    None for 10 dB where the output is classes, for the largest of them stands out of much noise, else 20 dB.
    """

    max_drop: float
    min_sqnr: float | None = None


def tells(unit: str, count: int) -> bool:
    """Whether a metric in `unit` says anything on `count` samples; percentages of a handful do not."""
    return count >= FEW or unit != "%"


def remark(count: int) -> str:
    """What must be said of scores on `count` held-back samples; "" where nothing must. 0: on those calibrated with."""
    if count >= _HANDFUL:
        return ""
    if count == 0:
        return "checked on its one calibration sample only, which tells little"
    return f"checked on {count} held-back sample{'s' if count > 1 else ''}, which tells little"


def good(scores: Mapping[str, float], of_float: Mapping[str, float], limits: Limits, count: int) -> bool:
    """Whether no metric lost surely more than allowed.

    On a few dozen samples two flips are chance, not a drop: what decides is whether so many flips among `count` samples
    would be unlikely (under 5 %) if the true drop were the one that is allowed. A collapse shows in SQNR first.
    """
    if scores["sqnr"] < least_sqnr(scores, limits):
        return False
    lost = of_float.get("psnr", metric.LIMIT_DB) - scores.get("psnr", metric.LIMIT_DB)
    if of_float.get("psnr", metric.LIMIT_DB) < metric.LIMIT_DB and lost > limits.max_drop * _DB_A_POINT:
        return False
    if count < FEW:
        return True
    drops = [of_float[name] - scores[name] for name in ("top1", "agreement") if name in scores]
    flips = [max(0, round(drop * count / 100)) for drop in drops]
    return all(_chance(flip, count, limits.max_drop / 100) >= _UNLIKELY for flip in flips)


def least_sqnr(scores: Mapping[str, float], limits: Limits) -> float:
    """dB of SQNR that a network with such `scores` must have."""
    if limits.min_sqnr is not None:
        return limits.min_sqnr
    return _CLASSES_DB if "agreement" in scores else _SIGNAL_DB


def _chance(flips: int, count: int, rate: float) -> float:
    """Probability of at least `flips` among `count` when each happens at `rate` (binomial)."""
    from scipy.special import bdtrc

    return float(bdtrc(flips - 1, count, min(rate, 1.0)))
