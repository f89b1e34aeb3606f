"""The share of samples, or of positions, with a right class among the highest scores."""

import numpy as np

from convkit.compress.errors import ConvkitError
from convkit.compress.labels import acceptable
from convkit.compress.metric import Outputs, class_axis, first


def hits(outputs: Outputs, labels: np.ndarray | None, count: int) -> float:
    """Percent of labels found among the `count` highest scores; equal scores rank by class index.

    Labels are class indices [N] (or [N, …] for scores [N, C, …]), or a boolean matrix [N, K] of acceptable classes.
    """
    if labels is None:
        raise ConvkitError("there are no labels to score against")
    scores = np.moveaxis(first(outputs), class_axis(first(outputs)), -1)
    if scores.ndim < 2 or scores.shape[-1] < count + 1:  # noqa: PLR2004
        raise ConvkitError(f"an output of shape {list(first(outputs).shape)} has no {count + 1} classes to rank")
    order = np.argsort(-scores, axis=-1, kind="stable")[..., :count]
    right = np.take_along_axis(acceptable(labels, scores), order, axis=-1).any(axis=-1)
    return float((right & np.isfinite(scores).all(axis=-1)).mean() * 100)
