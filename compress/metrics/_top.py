"""The share of samples, or of positions, with a right class among the highest scores."""

import numpy as np

from convkit.compress.errors import ConvkitError
from convkit.compress.labels import acceptable
from convkit.compress.metric import Outputs, alike, class_axis, first


def hits(outputs: Outputs, reference: Outputs | None, labels: np.ndarray | None, count: int) -> float:
    """Percent of labels found among the `count` highest scores; equal scores rank by class index. Classes are on the
    axis that they have in the `reference`, where there is one.

    Labels are class indices [N] (or [N, …] for scores [N, C, …]), or a boolean matrix [N, K] of acceptable classes;
    what has none, such as -100, is left out.
    """
    if labels is None:
        raise ConvkitError("there are no labels to score against")
    scores = np.moveaxis(first(outputs), class_axis(alike(outputs, reference)), -1).astype(np.float64)
    if scores.ndim < 2 or scores.shape[-1] < count + 1:  # noqa: PLR2004
        raise ConvkitError(f"an output of shape {list(first(outputs).shape)} has no {count + 1} classes to rank")
    order = np.argsort(-scores, axis=-1, kind="stable")[..., :count]
    wanted = acceptable(labels, scores)
    right = np.take_along_axis(wanted, order, axis=-1).any(axis=-1) & np.isfinite(scores).all(axis=-1)
    counted = np.asarray(right)[np.asarray(wanted.any(axis=-1))]
    if not counted.size:
        raise ConvkitError("no sample has a label", hint="check the labels")
    return float(counted.mean() * 100)
