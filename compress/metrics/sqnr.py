"""Signal to quantization noise in dB: power of the float network's output over power of the difference."""

import numpy as np

from convkit.compress.errors import ConvkitError
from convkit.compress.metric import Metric, Outputs, decibels, first, same_shape


def _score(outputs: Outputs, reference: Outputs | None, _labels: np.ndarray | None) -> float:
    """Over all samples together; 200 dB where nothing differs."""
    if reference is None:
        raise ConvkitError("there is no float network to compare with")
    noisy, clean = first(outputs), first(reference)
    same_shape(noisy, clean, "the float network's")
    with np.errstate(invalid="ignore", over="ignore"):
        return decibels(_power(clean), _power(np.subtract(noisy, clean, dtype=np.float64)))


def _power(x: np.ndarray) -> float:
    return float(np.square(x, dtype=np.float64).sum())


PART = Metric(unit="dB", needs="reference", score=_score)
