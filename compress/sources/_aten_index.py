"""Slices, picks and scatters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from convkit.compress.sources._aten import Result, Translate
from convkit.compress.sources._aten_graph import Builder, Constant, Operand, Size, shape, value
from convkit.compress.sources._aten_shape import reshape
from convkit.compress.sources._aten_size import same

_END = torch.iinfo(torch.int64).max


def _cut(b: Builder, x: Operand, axis: int, begin: Size, end: Size, step: int = 1) -> Operand:
    if same(begin, 0) and step == 1 and (same(end, _END) or same(end, shape(x)[axis])):
        return x
    return b.op("Slice", x, b.size(begin), b.size(end), b.integers(axis % len(shape(x))), b.integers(step))


def _slice(b: Builder, x: Operand, axis: int, begin: Size | None, end: Size | None, step: int) -> Result:
    return _cut(b, x, axis, 0 if begin is None else begin, _END if end is None else end, step)


def _narrow(b: Builder, x: Operand, axis: int, begin: Size, length: Size) -> Result:
    if isinstance(begin, int) and begin < 0:
        begin = shape(x)[axis] + begin
    return _cut(b, x, axis, begin, begin + length)


def _select(b: Builder, x: Operand, axis: int, index: Size) -> Result:
    if not isinstance(index, int):
        raise b.refuse("a pick at a place that depends on a free size")
    return b.op("Gather", x, b.constant(index, torch.int64), axis=axis % len(shape(x)))


def _index_select(b: Builder, x: Operand, axis: int, index: Operand) -> Result:
    return b.op("Gather", x, index, axis=axis % len(shape(x)))


def _embedding(b: Builder, table: Operand, index: Operand, *_: object) -> Result:
    return b.op("Gather", table, index, axis=0)


def _one_hot(b: Builder, index: Operand, classes: int) -> Result:
    if value(index).dtype != torch.int64:  # torch refuses them too, but only where it computes values
        raise b.refuse(f"a one_hot of {str(value(index).dtype).removeprefix('torch.')}, not int64,")
    return b.op("OneHot", index, b.constant(classes, torch.int64), b.integers(0, 1), axis=-1)


def _index(b: Builder, x: Operand, indices: Sequence[Operand | None]) -> Result:
    """x[:, i] is a Gather; x[:, :, i, j], with i and j known, one along both axes as if they were one."""
    used = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    first, last = used[0][0], used[-1][0]
    if last - first + 1 != len(used) or any(value(index).dtype == torch.bool for _, index in used):
        raise b.refuse("indexing by a mask, or by tensors along axes that are apart,")
    if len(used) == 1:
        return b.op("Gather", x, used[0][1], axis=first)
    sizes = shape(x)
    flat = torch.zeros((), dtype=torch.int64)
    for axis, index in used:
        size = sizes[axis]
        if not isinstance(index, Constant) or not isinstance(size, int):
            raise b.refuse("indexing by several tensors that are not fixed")
        flat = flat * size + index.tensor % size
    joined = math.prod(int(size) for size in sizes[first : last + 1])
    merged = reshape(b, x, (*sizes[:first], joined, *sizes[last + 1 :]))
    return b.op("Gather", merged, b.constant(flat.tolist(), torch.int64), axis=first)


def _gather(b: Builder, x: Operand, axis: int, index: Operand, *_: object) -> Result:
    return b.op("GatherElements", x, index, axis=axis % len(shape(x)))


def _flip(b: Builder, x: Operand, axes: Sequence[int]) -> Result:
    """A slice that runs backwards along every axis named."""
    count = len(axes)
    listed = b.integers(*(axis % len(shape(x)) for axis in axes))
    return b.op("Slice", x, b.integers(*[-1] * count), b.integers(*[-_END] * count), listed, b.integers(*[-1] * count))


def _roll(b: Builder, x: Operand, shifts: Sequence[int], axes: Sequence[int]) -> Result:
    if not axes or not all(isinstance(shift, int) for shift in shifts):
        raise b.refuse("a roll without axes")
    for shift, axis in zip(shifts, axes, strict=True):
        size = value(x).shape[axis] if not isinstance(x, Constant) and "val" in x.meta else b.val.shape[axis]
        place = shift % size if isinstance(size, int) else shift
        if place:
            tail = b.op("Slice", x, b.integers(-place), b.integers(_END), b.integers(axis % b.val.ndim))
            head = b.op("Slice", x, b.integers(0), b.integers(-place), b.integers(axis % b.val.ndim))
            x = b.op("Concat", tail, head, axis=axis % b.val.ndim)
    return x


def _slice_scatter(
    b: Builder, x: Operand, source: Operand, axis: int, begin: Size | None, end: Size | None, step: int
) -> Result:
    """x with a slice replaced: what stands before it, the new part, what stands behind."""
    size = shape(x)[axis]
    first = begin or 0
    last = size if end is None or same(end, _END) else end
    if step != 1 or not isinstance(first, int) or first < 0 or (isinstance(last, int) and last < 0):
        raise b.refuse("writing into a slice with steps or from the end")
    parts = [] if first == 0 else [_cut(b, x, axis, 0, first)]
    parts.append(source)
    if not same(last, size):
        parts.append(_cut(b, x, axis, last, _END))
    return parts[0] if len(parts) == 1 else b.op("Concat", *parts, axis=axis % len(shape(x)))


def _select_scatter(b: Builder, x: Operand, source: Operand, axis: int, index: int) -> Result:
    axis %= len(shape(x))
    row = b.op("Unsqueeze", source, b.integers(axis))
    row.meta["val"] = value(x).narrow(axis, 0, 1)
    size = shape(x)[axis]
    if not isinstance(size, int):
        raise b.refuse("writing into a free size")
    place = index % size
    return _slice_scatter(b, x, row, axis, place, place + 1, 1)


def _copy(b: Builder, x: Operand, source: Operand, *_: object) -> Result:
    """The contents of `source` in the shape and type of `x`."""
    y = b.cast(source, b.val.dtype)
    if len(shape(source)) == len(shape(x)) and all(map(same, shape(source), shape(x))):
        return y
    return b.op("Expand", y, b.sizes(shape(x)))


def _topk(b: Builder, x: Operand, k: int, axis: int, largest: bool, ordered: bool) -> Result:
    outputs = b.op("TopK", x, b.integers(k), axis=axis % len(shape(x)), largest=int(largest), sorted=int(ordered))
    return b.pick(outputs, 0), b.pick(outputs, 1)


def _tri(upper: int) -> Translate:
    return lambda b, x, diagonal: b.op("Trilu", x, b.constant(diagonal, torch.int64), upper=upper)


TABLE: dict[str, Translate] = {
    "slice": _slice, "narrow": _narrow, "select": _select, "index_select": _index_select, "embedding": _embedding,
    "one_hot": _one_hot,
    "index": _index, "gather": _gather, "flip": _flip, "roll": _roll, "slice_scatter": _slice_scatter,
    "select_scatter": _select_scatter, "copy": _copy, "topk": _topk, "triu": _tri(1), "tril": _tri(0),
}  # fmt: skip
