"""A Metric: how good outputs are, as one number. Parts in `compress/metrics`, or the user's package.module:function."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from convkit.compress import function, parts
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    import numpy as np

Outputs = Mapping[str, "np.ndarray"]
Needs = Literal["labels", "reference"]
Better = Literal["higher", "lower"]
Score = Callable[[Outputs, "Outputs | None", "np.ndarray | None"], float]

TOP5 = 5
LIMIT_DB = 200.0
"""A ratio in dB ends here: equal arrays have no noise, and JSON has no infinity."""
_SMALL = 0.1
_MATRIX = 2
"""Axes of the scores of a classifier: samples and classes."""


@dataclass(frozen=True, slots=True)
class Metric:
    """`score(outputs, reference, labels)`: outputs [N, …] by name, those of the float network, `Data.labels`.

    `needs` says which of the last two must be there. A built-in metric scores the first output it is given, sqnr
    the worst of all; percent run from 0 to 100; an output with NaN or Inf never counts as right.
    """

    unit: str
    needs: Needs
    score: Score
    better: Better = "higher"


def load(name: str) -> Metric:
    """The metric called `name`, or the user's function `package.module:function` with the signature of `score`.

    The function may carry `unit`, `needs` and `better` as attributes.
    """
    if function.names_one(name):
        own = function.load(name)
        needs, better = _word(own, "needs", "reference", "labels"), _word(own, "better", "higher", "lower")
        score = functools.partial(function.call, name)
        return Metric(str(getattr(own, "unit", "")), cast("Needs", needs), score, cast("Better", better))
    found: Metric = parts.load("compress/metrics", name)
    return found


def evaluate(
    name: str,
    outputs: Outputs,
    reference: Outputs | None = None,
    labels: np.ndarray | None = None,
    output: str | None = None,
) -> float:
    """The score of `outputs` by the metric called `name`; `output` selects the one that is scored.

    Raises ConvkitError when labels or reference are needed and absent, or do not fit the output.
    """
    metric = load(name)
    if metric.needs == "labels" and labels is None:
        raise ConvkitError(
            f"metric {name!r} needs labels, the data has none",
            hint="add an array `labels`, give --labels, or use agreement or sqnr",
        )
    if metric.needs == "reference" and reference is None:
        raise ConvkitError(f"metric {name!r} needs the float network's outputs", hint="give the original model as well")
    score = metric.score(_select(outputs, output), reference and _select(reference, output), labels)
    try:
        value = float(score)
    except (TypeError, ValueError) as error:
        raise ConvkitError(f"metric {name!r} returned {type(score).__name__}", hint="return one number") from error
    if not math.isfinite(value):
        raise ConvkitError(f"metric {name!r} is {value}", hint="return a finite number")
    return value


def joined(parts: Mapping[str, Sequence[np.ndarray]]) -> dict[str, np.ndarray]:
    """Outputs [n, …] of batches by name as those of all samples; one that is no such array, or whose other sizes differ
    from batch to batch, is left out, but for the first, which is what is scored.

    Raises ConvkitError for that.
    """
    import numpy as np

    found = {}
    for place, (name, arrays) in enumerate(parts.items()):
        if all(array.ndim and array.shape[1:] == arrays[0].shape[1:] for array in arrays):
            found[name] = np.concatenate(arrays)
        elif not place:
            shapes = ", ".join(dict.fromkeys(str(list(array.shape)) for array in arrays))
            raise ConvkitError(f"output {name!r} is {shapes}, which no metric joins", hint="score another output")
    return found


def defaults(outputs: Outputs, labels: np.ndarray | None = None) -> tuple[str, ...]:
    """Names of the metrics that suit the first output and the labels.

    Classes with labels: top1, top5, agreement, sqnr. Classes without: agreement, sqnr. Anything else: psnr (against
    the labels if they are target arrays, else the float network) and sqnr.
    """
    scores = first(outputs)
    if labels is not None and labels.dtype.kind == "f":
        return ("psnr", "sqnr")
    # Integer labels per position are a segmentation's: its scores cannot be told from an image by themselves.
    if labels is not None and labels.ndim > 1 and labels.shape == scores.shape[:1] + scores.shape[2:]:
        return ("top1", "agreement", "sqnr")
    if not classifies(scores):
        return ("psnr", "sqnr")
    if labels is None:
        return ("agreement", "sqnr")
    few = scores.shape[class_axis(scores)] <= TOP5
    return ("top1", "agreement", "sqnr") if few else ("top1", "top5", "agreement", "sqnr")


def first(outputs: Outputs) -> np.ndarray:
    """The output that is scored unless another is selected."""
    return next(iter(outputs.values()))


def classifies(scores: np.ndarray) -> bool:
    """Whether an output is class scores: [N, C], or per-position probabilities such as a text reader's [N, T, C]."""
    if scores.ndim == _MATRIX:
        return bool(scores.shape[1] > 1)
    return scores.ndim > _MATRIX and class_axis(scores) == scores.ndim - 1


def class_axis(scores: np.ndarray) -> int:
    """1, or the last axis where the values along it are probabilities and those along axis 1 are not."""
    if scores.ndim > _MATRIX and scores.shape[-1] > 1 and probabilities(scores, -1) and not probabilities(scores, 1):
        return scores.ndim - 1
    return 1


def alike(outputs: Outputs, reference: Outputs | None) -> np.ndarray:
    """The scores by which it is told what those in `outputs` are: the float network's, where they are of one rank."""
    own, like = first(outputs), first(reference or outputs)
    return like if like.ndim == own.ndim else own


def classes(scores: np.ndarray, axis: int) -> np.ndarray:
    """Index of the highest score along `axis`; -1, which is no class, where any score is NaN or Inf."""
    import numpy as np

    require_classes(scores, axis)
    return np.where(np.isfinite(scores).all(axis=axis), scores.argmax(axis=axis), -1)


def require_classes(scores: np.ndarray, axis: int) -> None:
    """Raise ConvkitError where `axis` of an output cannot be that of classes."""
    if scores.ndim < _MATRIX or scores.shape[axis] == 1:
        raise ConvkitError(f"an output of shape {list(scores.shape)} holds no class scores", hint="use sqnr or psnr")


def probabilities(scores: np.ndarray, axis: int) -> bool:
    """Whether what lies along `axis` are probabilities, as far as the first few samples tell."""
    import numpy as np

    some = scores[:4].astype(np.float64)
    return bool(np.all(some >= 0) and np.allclose(some.sum(axis=axis), 1, atol=1e-3))


def decibels(signal: float, noise: float) -> float:
    """10·log10(signal / noise) within ±200; noise that is no number is as bad as can be."""
    if not math.isfinite(noise) or (signal <= 0 < noise):
        return -LIMIT_DB
    if noise <= 0:
        return LIMIT_DB
    return min(max(10 * math.log10(signal / noise), -LIMIT_DB), LIMIT_DB)


def figure(value: float) -> str:
    """A score with two decimals, or where these tell nothing with two digits."""
    return f"{value:.2f}" if abs(value) >= _SMALL or not value else f"{value:.2g}"


def same_shape(output: np.ndarray, reference: np.ndarray, what: str) -> None:
    """Raise ConvkitError where an output cannot be compared element by element."""
    if output.shape != reference.shape:
        raise ConvkitError(f"the output is {list(output.shape)}, {what} {list(reference.shape)}")


def _word(score: Score, attribute: str, *allowed: str) -> str:
    """What the user's function says about itself; the first allowed word where it says nothing."""
    word = getattr(score, attribute, allowed[0])
    if word not in allowed:
        raise ConvkitError(f"a metric's {attribute!r} is {word!r}", hint=f"it is one of {', '.join(allowed)}")
    return str(word)


def _select(outputs: Outputs, output: str | None) -> Outputs:
    if output is None:
        return outputs
    if output not in outputs:
        raise ConvkitError(f"there is no output {output!r}", hint=f"there is: {', '.join(outputs)}")
    return {output: outputs[output]}
