"""Percent of samples whose highest score is an acceptable class."""

import numpy as np

from convkit.compress.metric import Metric, Outputs
from convkit.compress.metrics._top import hits


def _score(outputs: Outputs, reference: Outputs | None, labels: np.ndarray | None) -> float:
    return hits(outputs, reference, labels, 1)


PART = Metric(unit="%", needs="labels", score=_score)
