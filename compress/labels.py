"""Labels: what outputs are held against, as `Data.labels` has them: classes that are right, or the outputs wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    import numpy as np

LEAST_PROBABILITY = 2.0**-23
"""A probability counts as so much at least, for it may be rounded to zero; scikit-learn's log_loss does the same."""
_MATRIX = 2
_AT_ONCE = 16


def are_targets(labels: np.ndarray, output: np.ndarray) -> bool:
    """Whether labels are outputs that are wanted: floats, or integers (of images, say) in the output's own shape.

    Others are classes. Only axes behind the first, which counts samples, are compared.
    """
    same = labels.dtype.kind != "b" and labels.shape[1:] == output.shape[1:] and labels.ndim > 1
    return labels.dtype.kind == "f" or same


def acceptable(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Which classes are right: boolean, of the shape of `scores` [N, …, C], classes last.

    Labels are class indices [N, …], or a boolean matrix [N, K] for scores [N, C]. Raises ConvkitError for any other,
    and for a class that the scores lack.
    """
    import numpy as np

    known, wanted = scores.shape[-1], scores.shape[:-1]
    if labels.dtype.kind == "b" and labels.ndim == _MATRIX and len(labels) == wanted[0] and len(wanted) == 1:
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


def check(labels: np.ndarray, output: np.ndarray, axis: int) -> None:
    """Raise ConvkitError where some of `labels` do not fit an output like `output` [n, …], its classes on `axis`."""
    import numpy as np

    if are_targets(labels, output):
        if labels.shape[1:] != output.shape[1:]:
            raise ConvkitError(
                f"the output is {list(output.shape[1:])} a sample, the labels are {list(labels.shape[1:])}"
            )
        return
    if output.ndim <= axis:
        raise ConvkitError(
            f"the output is one number a sample, {list(output.shape)}, so there are no classes in it",
            hint="let it make a score of each class, or give labels in floats",
        )
    one = np.moveaxis(output[:1], axis, -1)
    for start in range(0, len(labels), _AT_ONCE):
        some = labels[start : start + _AT_ONCE]
        acceptable(some, np.broadcast_to(one, (len(some), *one.shape[1:])))
    if labels.dtype.kind == "b" and not labels.any():
        raise ConvkitError("no sample has a label", hint="check --labels")


def _check(highest: int, known: int) -> None:
    if highest >= known:
        raise ConvkitError(f"a label is class {highest}, the network has {known} classes (0 to {known - 1})")
