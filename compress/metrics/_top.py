"""The share of samples, or of positions, with a right class among the highest scores."""

import numpy as np

from convkit.compress.errors import ConvkitError
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
    acceptable = _acceptable(labels, scores)
    order = np.argsort(-scores, axis=-1, kind="stable")[..., :count]
    right = np.take_along_axis(acceptable, order, axis=-1).any(axis=-1)
    return float((right & np.isfinite(scores).all(axis=-1)).mean() * 100)


def _acceptable(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Boolean, of the scores' shape."""
    known = scores.shape[-1]
    wanted = scores.shape[:-1]
    if labels.dtype.kind == "b" and labels.ndim == 2 and len(labels) == wanted[0] and len(wanted) == 1:  # noqa: PLR2004
        _check(int(np.flatnonzero(labels.any(axis=0)).max(initial=0)), known)
        width = min(labels.shape[1], known)
        return np.pad(labels[:, :width], ((0, 0), (0, known - width)))
    if labels.dtype.kind in "iu" and labels.shape == wanted:
        _check(int(labels.max()), known)
        equal: np.ndarray = labels[..., None] == np.arange(known)
        return equal
    raise ConvkitError(
        f"labels {labels.dtype.name} {list(labels.shape)} do not fit class scores {list(scores.shape)}",
        hint="give a class index per sample, or a boolean matrix of acceptable classes",
    )


def _check(highest: int, known: int) -> None:
    if highest >= known:
        raise ConvkitError(f"a label is class {highest}, the network has {known} classes (0 to {known - 1})")
