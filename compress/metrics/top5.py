"""Percent of samples with an acceptable class among the five highest scores."""

import numpy as np

from convkit.compress.metric import TOP5, Metric, Outputs
from convkit.compress.metrics._top import hits


def _score(outputs: Outputs, reference: Outputs | None, labels: np.ndarray | None) -> float:
    return hits(outputs, reference, labels, TOP5)


PART = Metric(unit="%", needs="labels", score=_score)
