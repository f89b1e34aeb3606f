"""Reductions. `axes` is a tensor; without it every axis is reduced, or none where `noop_with_empty_axes`."""
# ruff: noqa: N802 - functions are named after their ONNX operators

from collections.abc import Callable

import torch
from torch import Tensor


def _reduce(
    function: Callable[[Tensor, list[int], bool], Tensor], x: Tensor, axes: Tensor | None, keepdims: int, noop: int
) -> Tensor:
    dims = [int(axis) for axis in axes.reshape(-1).tolist()] if axes is not None else []
    if not dims:
        if noop:
            # Only the reduction is left out; what is done to each element (a square, a log) still is.
            return function(x.unsqueeze(-1), [-1], False)
        dims = list(range(x.ndim))
    return function(x, dims, bool(keepdims)) if dims else function(x.unsqueeze(-1), [-1], False)


def _sum(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    return torch.sum(x, dims, keepdim=keep, dtype=x.dtype)


def _mean(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return torch.mean(x, dims, keepdim=keep)
    count = max(x.numel() // max(_sum(torch.ones_like(x), dims, keep).numel(), 1), 1)
    return torch.div(_sum(x, dims, keep), count, rounding_mode="trunc")


def _product(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    for dim in sorted((d % x.ndim for d in dims), reverse=True):
        x = torch.prod(x, dim, keepdim=keep, dtype=x.dtype)
    return x


def _extreme(x: Tensor, dims: list[int], keep: bool, largest: bool) -> Tensor:
    """Of no elements the largest is the type's lowest value, and the reverse."""
    if x.numel() == 0:
        return _extreme_of_none(x, dims, keep, largest)
    return torch.amax(x, dims, keepdim=keep) if largest else torch.amin(x, dims, keepdim=keep)


def _extreme_of_none(x: Tensor, dims: list[int], keep: bool, largest: bool) -> Tensor:
    shape = _sum(x.to(torch.float32), dims, keep).shape
    if x.dtype is torch.bool:
        return torch.full(shape, not largest, dtype=x.dtype, device=x.device)
    if x.is_floating_point():
        return torch.full(shape, -torch.inf if largest else torch.inf, dtype=x.dtype, device=x.device)
    limits = torch.iinfo(x.dtype)
    return torch.full(shape, limits.min if largest else limits.max, dtype=x.dtype, device=x.device)


def ReduceSum(x: Tensor, axes: Tensor | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    return _reduce(_sum, x, axes, keepdims, noop_with_empty_axes)


def ReduceMean(x: Tensor, axes: Tensor | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    return _reduce(_mean, x, axes, keepdims, noop_with_empty_axes)


def ReduceProd(x: Tensor, axes: Tensor | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    return _reduce(_product, x, axes, keepdims, noop_with_empty_axes)


def ReduceMax(x: Tensor, axes: Tensor | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    return _reduce(lambda t, d, k: _extreme(t, d, k, largest=True), x, axes, keepdims, noop_with_empty_axes)


def ReduceMin(x: Tensor, axes: Tensor | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    return _reduce(lambda t, d, k: _extreme(t, d, k, largest=False), x, axes, keepdims, noop_with_empty_axes)


def ReduceL1(x: Tensor, axes: Tensor | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    return _reduce(lambda t, d, k: _sum(t.abs(), d, k), x, axes, keepdims, noop_with_empty_axes)


def ReduceL2(x: Tensor, axes: Tensor | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    return _reduce(lambda t, d, k: _sum(t * t, d, k).sqrt().to(t.dtype), x, axes, keepdims, noop_with_empty_axes)


def ReduceSumSquare(
    x: Tensor, axes: Tensor | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    return _reduce(lambda t, d, k: _sum(t * t, d, k), x, axes, keepdims, noop_with_empty_axes)


def ReduceLogSum(x: Tensor, axes: Tensor | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
    return _reduce(lambda t, d, k: _sum(t, d, k).log(), x, axes, keepdims, noop_with_empty_axes)


def ReduceLogSumExp(
    x: Tensor, axes: Tensor | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Tensor:
    return _reduce(torch.logsumexp, x, axes, keepdims, noop_with_empty_axes)
