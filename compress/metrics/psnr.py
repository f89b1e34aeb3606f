"""Peak signal to noise ratio in dB, mean over images: against target images, else against the float network."""

import numpy as np

from convkit.compress.errors import ConvkitError
from convkit.compress.metric import Metric, Outputs, decibels, first, same_shape


def _score(outputs: Outputs, reference: Outputs | None, labels: np.ndarray | None) -> float:
    """Labels count as targets where they have the output's shape."""
    image = first(outputs)
    if labels is not None and labels.shape == image.shape:
        return _psnr(image, labels)
    if reference is None:
        raise ConvkitError("psnr needs target images as labels, or the float network's outputs")
    same_shape(image, first(reference), "the float network's")
    return _psnr(image, first(reference))


def _psnr(image: np.ndarray, target: np.ndarray) -> float:
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.square(np.subtract(image, target, dtype=np.float64)).reshape(len(image), -1).mean(axis=1)
    peak = _peak(target)
    return float(np.mean([decibels(peak**2, noise) for noise in error.tolist()]))


def _peak(target: np.ndarray) -> float:
    """255 for 8 bits a channel, 1 for images within 0 to 1, else the range that the targets really have."""
    low, high = float(target.min()), float(target.max())
    if target.dtype == np.uint8:
        return 255.0
    return 1.0 if low >= 0 and high <= 1 else high - low


PART = Metric(unit="dB", needs="reference", score=_score)
