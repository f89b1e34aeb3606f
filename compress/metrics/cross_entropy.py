"""Minus the logarithm of the probability of a right class, in nats, mean over samples or positions."""

import numpy as np

from convkit.compress.errors import ConvkitError
from convkit.compress.labels import LEAST_PROBABILITY, acceptable
from convkit.compress.metric import Metric, Outputs, alike, class_axis, first, probabilities, require_classes

_BROKEN = -float(np.log(np.finfo(np.float32).tiny))
"""What a position costs whose scores are no numbers: as much as a probability that float32 just tells from zero."""


def _score(outputs: Outputs, reference: Outputs | None, labels: np.ndarray | None) -> float:
    """Of scores, after a softmax, or of probabilities where the float network's are that.

    Where several classes are acceptable, the probability is that of any of them; a sample without one does not count.
    """
    if labels is None:
        raise ConvkitError("there are no labels to score against")
    like = alike(outputs, reference)
    require_classes(like, axis := class_axis(like))
    scores = np.moveaxis(first(outputs), axis, -1).astype(np.float64)
    right = acceptable(labels, scores)
    counted, finite = right.any(axis=-1), np.asarray(np.isfinite(scores).all(axis=-1))
    if not counted.any():
        raise ConvkitError("no sample has a label", hint="check --labels")
    costs = _costs(np.where(finite[..., None], scores, 0), right, already=probabilities(like, axis))
    return float(np.where(finite, costs, _BROKEN)[counted].mean())


def _costs(scores: np.ndarray, right: np.ndarray, *, already: bool) -> np.ndarray:
    """Of each position; `already`: scores are probabilities."""
    with np.errstate(divide="ignore"):
        if already:
            # Rounded ones need not sum to 1, and none is righter for being larger with all others.
            odds = np.maximum(scores, LEAST_PROBABILITY)
            found = np.log(odds.sum(axis=-1)) - np.log(np.where(right, odds, 0).sum(axis=-1))
        else:
            chosen = np.where(right, scores, -np.inf)
            found = np.logaddexp.reduce(scores, axis=-1) - np.logaddexp.reduce(chosen, axis=-1)
    return np.asarray(found)


PART = Metric(unit="nats", needs="labels", score=_score, better="lower")
