"""Squared error to the outputs wanted, over their power: normalised mean squared error, noise over signal."""

import math

import numpy as np

from convkit.compress.errors import ConvkitError
from convkit.compress.metric import LIMIT_DB, Metric, Outputs, first, same_shape

_LIMIT = 10 ** (LIMIT_DB / 10)


def _score(outputs: Outputs, _reference: Outputs | None, labels: np.ndarray | None) -> float:
    """Over all samples together; an output that is no number is as bad as is told."""
    if labels is None:
        raise ConvkitError("nmse needs the outputs wanted as labels")
    same_shape(first(outputs), labels, "the labels are")
    signal = float(np.square(labels, dtype=np.float64).sum())
    if not signal:
        raise ConvkitError("the labels are all zero: there is nothing to relate an error to")
    with np.errstate(invalid="ignore", over="ignore"):
        noise = float(np.square(np.subtract(first(outputs), labels, dtype=np.float64)).sum())
    return min(noise / signal, _LIMIT) if math.isfinite(noise) else _LIMIT


PART = Metric(unit="", needs="labels", score=_score, better="lower")
