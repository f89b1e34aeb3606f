"""Padding."""
# ruff: noqa: N802 - functions are named after their ONNX operators

import torch
import torch.nn.functional as F
from torch import Tensor


def Pad(
    x: Tensor, pads: Tensor, constant_value: Tensor | None = None, axes: Tensor | None = None, *, mode: str = "constant"
) -> Tensor:
    """`pads` holds all begins and then all ends, of `axes` or of every axis; negative ones crop.

    Modes: constant, reflect (mirror without the edge), edge, wrap.
    """
    listed = [int(pad) for pad in pads.tolist()]
    count = len(listed) // 2
    dims = [int(axis) % x.ndim for axis in axes.tolist()] if axes is not None else list(range(x.ndim))
    begin = dict(zip(dims, listed[:count], strict=True))
    end = dict(zip(dims, listed[count:], strict=True))
    if mode == "constant":
        value = constant_value.item() if constant_value is not None else 0
        reverse = [p for i in reversed(range(x.ndim)) for p in (begin.get(i, 0), end.get(i, 0))]
        return F.pad(x, reverse, value=value)
    for dim in sorted(dims):
        x = x.index_select(dim, _source(x.shape[dim], begin[dim], end[dim], mode).to(x.device))
    return x


def _source(size: int, begin: int, end: int, mode: str) -> Tensor:
    """For each place along a padded axis the place in the input that its value comes from."""
    place = torch.arange(-begin, size + end)
    if mode == "edge":
        return place.clamp(0, size - 1)
    if mode == "wrap":
        return place % size
    if mode != "reflect":
        raise ValueError(f"Pad has no mode {mode!r}")
    period = max(2 * (size - 1), 1)
    folded = place % period
    return torch.where(folded < size, folded, period - folded)
