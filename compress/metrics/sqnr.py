"""Signal to quantization noise in dB: power of the float network's output over power of the difference."""

import numpy as np

from convkit.compress.errors import ConvkitError
from convkit.compress.metric import Metric, Outputs, decibels, same_shape


def _score(outputs: Outputs, reference: Outputs | None, _labels: np.ndarray | None) -> float:
    """Over all samples together, of the output that suffered most; 200 dB where nothing differs.

    Class indices are no signal: they count only where there is no other output.
    """
    if reference is None:
        raise ConvkitError("there is no float network to compare with")
    names = [name for name, clean in reference.items() if clean.dtype.kind == "f"] or list(reference)
    return min(_ratio(outputs[name], reference[name]) for name in names)


def _ratio(noisy: np.ndarray, clean: np.ndarray) -> float:
    same_shape(noisy, clean, "the float network's")
    with np.errstate(invalid="ignore", over="ignore"):
        return decibels(_power(clean), _power(np.subtract(noisy, clean, dtype=np.float64)))


def _power(x: np.ndarray) -> float:
    return float(np.square(x, dtype=np.float64).sum())


PART = Metric(unit="dB", needs="reference", score=_score)
