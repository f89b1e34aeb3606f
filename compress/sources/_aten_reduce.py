"""Sums, means, extremes and norms over axes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from convkit.compress.sources._aten import Result, Translate
from convkit.compress.sources._aten_graph import Builder, Operand, shape, value

Axes = int | Sequence[int] | None


def _axes(x: Operand, axes: Axes) -> list[int]:
    """Axes as torch means them, none at all being all, in order."""
    rank = len(shape(x))
    listed = [axes] if isinstance(axes, int) else list(axes or range(rank))
    return sorted(axis % rank for axis in listed)


def _reduce(b: Builder, operator: str, x: Operand, axes: Axes, keep: bool = False) -> Operand:
    if not shape(x):
        return x
    return b.op(operator, x, b.integers(*_axes(x, axes)), keepdims=int(keep))


def _reduction(operator: str) -> Translate:
    """(x, axes, keepdim, dtype); the whole-tensor form of torch's schema is (x, dtype)."""

    def translate(b: Builder, x: Operand, axes: Axes | torch.dtype = None, keep: bool = False, *_: object) -> Result:
        if isinstance(axes, torch.dtype):
            axes = None
        return _reduce(b, operator, b.cast(x, b.val.dtype), axes, keep)

    return translate


def _mean(b: Builder, x: Operand, axes: Axes | torch.dtype = None, keep: bool = False, *_: object) -> Result:
    """Over all spatial axes it is global pooling, which engines run in INT8 where they do not reduce."""
    if isinstance(axes, torch.dtype):
        axes = None
    x, rank = b.cast(x, b.val.dtype), len(shape(x))
    if rank > 2 and _axes(x, axes) == list(range(2, rank)):  # noqa: PLR2004 - behind batch and channel
        pooled = b.op("GlobalAveragePool", x)
        return pooled if keep else b.op("Flatten", pooled, axis=1)
    return _reduce(b, "ReduceMean", x, axes, keep)


def _var(b: Builder, x: Operand, axes: Axes = None, correction: float | None = None, keep: bool = False) -> Operand:
    """sum((x - mean)²) / (count - correction)"""
    count = 1
    for axis in _axes(x, axes):
        size = shape(x)[axis]
        if not isinstance(size, int) and correction != 0:
            raise b.refuse("an unbiased variance over a free size")
        count *= size if isinstance(size, int) else 1
    centred = b.op("Sub", x, _reduce(b, "ReduceMean", x, axes, keep=True))
    listed = b.integers(*_axes(x, axes))
    mean = b.op("ReduceMean", b.op("Mul", centred, centred), listed, keepdims=int(keep))
    correction = 1 if correction is None else correction
    if correction == 0:
        return mean
    return b.op("Mul", mean, b.constant(count / (count - correction), value(x).dtype))


def _var_dim(b: Builder, x: Operand, axes: Axes = None, unbiased: bool = True, keep: bool = False) -> Result:
    """The older schema, with `unbiased` for a correction of one; the whole-tensor form is (x, unbiased)."""
    whole = isinstance(axes, bool)
    corrected = axes if whole else unbiased
    return _var(b, x, None if whole else axes, 1 if corrected else 0, keep)


def _std(b: Builder, x: Operand, axes: Axes = None, correction: float | None = None, keep: bool = False) -> Result:
    return b.op("Sqrt", _var(b, x, axes, correction, keep))


def _std_dim(b: Builder, x: Operand, axes: Axes = None, unbiased: bool = True, keep: bool = False) -> Result:
    result = _var_dim(b, x, axes, unbiased, keep)
    assert not isinstance(result, tuple)  # noqa: S101 - for the type checker
    return b.op("Sqrt", result)


def _var_mean(b: Builder, x: Operand, axes: Axes = None, correction: float | None = None, keep: bool = False) -> Result:
    return _var(b, x, axes, correction, keep), _reduce(b, "ReduceMean", x, axes, keep)


def _extreme(operator: str, index: str) -> Translate:
    """max(x, axis) -> the values and where they stand."""

    def translate(b: Builder, x: Operand, axis: int, keep: bool = False) -> Result:
        axis %= len(shape(x))
        return _reduce(b, operator, x, axis, keep), b.op(index, x, axis=axis, keepdims=int(keep))

    return translate


def _arg(operator: str) -> Translate:
    def translate(b: Builder, x: Operand, axis: int | None = None, keep: bool = False) -> Result:
        if axis is None:
            return b.op(operator, b.op("Reshape", x, b.integers(-1)), axis=0, keepdims=0)
        return b.op(operator, x, axis=axis % len(shape(x)), keepdims=int(keep))

    return translate


def _norm(b: Builder, x: Operand, order: float = 2, axes: Axes = None, keep: bool = False, *_: object) -> Result:
    if order in {1, 2}:
        return _reduce(b, "ReduceL1" if order == 1 else "ReduceL2", x, axes, keep)
    if order == float("inf"):
        return _reduce(b, "ReduceMax", b.op("Abs", x), _axes(x, axes), keep)
    raise b.refuse(f"a norm of order {order}")


def _norm_of(b: Builder, x: Operand, order: float | None, axes: Axes = None, keep: bool = False, *_: object) -> Result:
    return _norm(b, x, 2 if order is None else order, axes, keep)


def _logsumexp(b: Builder, x: Operand, axes: Axes, keep: bool = False) -> Result:
    return _reduce(b, "ReduceLogSumExp", x, axes, keep)


def _cumsum(b: Builder, x: Operand, axis: int, *_: object) -> Result:
    return b.op("CumSum", b.cast(x, b.val.dtype), b.constant(axis, torch.int64))


TABLE: dict[str, Translate] = {
    "mean": _mean, "sum": _reduction("ReduceSum"), "prod": _reduction("ReduceProd"),
    "amax": _reduction("ReduceMax"), "amin": _reduction("ReduceMin"),
    "max.default": _reduction("ReduceMax"), "min.default": _reduction("ReduceMin"), "max": _reduction("ReduceMax"),
    "max.dim": _extreme("ReduceMax", "ArgMax"), "min.dim": _extreme("ReduceMin", "ArgMin"),
    "argmax": _arg("ArgMax"), "argmin": _arg("ArgMin"),
    "var": _var_dim, "var.correction": _var, "std": _std_dim, "std.correction": _std,
    "var_mean.correction": _var_mean, "linalg_vector_norm": _norm, "norm": _norm_of, "logsumexp": _logsumexp,
    "cumsum": _cumsum,
}  # fmt: skip
