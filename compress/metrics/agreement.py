"""Percent of samples that get the same class as from the float network."""

import numpy as np

from convkit.compress.errors import ConvkitError
from convkit.compress.metric import Metric, Outputs, class_axis, classes, first, same_shape


def _score(outputs: Outputs, reference: Outputs | None, _labels: np.ndarray | None) -> float:
    """Over samples for [N, C], over positions for [N, C, …] (segmentation) and for probabilities [N, …, C]."""
    if reference is None:
        raise ConvkitError("there is no float network to agree with")
    scores, wanted = first(outputs), first(reference)
    same_shape(scores, wanted, "the float network's")
    axis = class_axis(wanted)
    found, right = classes(scores, axis), classes(wanted, axis)
    return float(((found == right) & (found >= 0)).mean() * 100)


PART = Metric(unit="%", needs="reference", score=_score)
