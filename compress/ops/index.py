"""Operators that pick, place or count elements by index."""
# ruff: noqa: N802, ARG001, A002 - functions are named after their ONNX operators and take all their attributes

import torch
from torch import Tensor

_REDUCE = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _positive(indices: Tensor, size: int) -> Tensor:
    """Indices counted from the end become those from the start."""
    return torch.where(indices < 0, indices + size, indices).long()


def Slice(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
    """x[start:end:step] along each axis, numpy's rules, negative steps included."""
    count = starts.numel()
    listed = axes.tolist() if axes is not None else list(range(count))
    strides = steps.tolist() if steps is not None else [1] * count
    for start, end, axis, step in zip(starts.tolist(), ends.tolist(), listed, strides, strict=True):
        x = _slice(x, int(start), int(end), int(axis), int(step))
    return x


def _slice(x: Tensor, start: int, end: int, axis: int, step: int) -> Tensor:
    size = x.shape[axis]
    if step > 0:
        first, last, stride = slice(start, end, step).indices(size)
        return x.narrow(axis, first, max(last - first, 0))[_along(axis, x.ndim, stride)]
    picked = range(size)[slice(start, end if end >= -size else None, step)]
    return x.index_select(axis, torch.tensor(list(picked), dtype=torch.int64, device=x.device))


def _along(axis: int, rank: int, stride: int) -> tuple[slice, ...]:
    axis = axis + rank if axis < 0 else axis
    return (*(slice(None) for _ in range(axis)), slice(None, None, stride))


def Gather(data: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """numpy.take: the axis is replaced by the dimensions of `indices`."""
    axis = axis + data.ndim if axis < 0 else axis
    picked = data.index_select(axis, _positive(indices.reshape(-1), data.shape[axis]))
    return picked.reshape(data.shape[:axis] + indices.shape + data.shape[axis + 1 :])


def GatherElements(data: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    return torch.gather(data, axis, _positive(indices, data.shape[axis]))


def GatherND(data: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    """The last dimension of `indices` addresses the dimensions of `data` after the first `batch_dims`."""
    depth = indices.shape[-1]
    sizes = torch.tensor(data.shape[batch_dims : batch_dims + depth], device=data.device)
    where = _positive(indices, 0) + torch.where(indices < 0, sizes, torch.zeros_like(sizes))
    batch = _batch_index(indices, batch_dims)
    return data[(*batch, *where.unbind(-1))]


def _batch_index(indices: Tensor, batch_dims: int) -> list[Tensor]:
    shape = indices.shape[:-1]
    grids = []
    for dim in range(batch_dims):
        view = [1] * len(shape)
        view[dim] = shape[dim]
        grids.append(torch.arange(shape[dim], device=indices.device).reshape(view).expand(shape))
    return grids


def ScatterElements(
    data: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none"
) -> Tensor:
    """`data` with `updates` written, or reduced into it, at `indices` along `axis`."""
    where = _positive(indices, data.shape[axis])
    if reduction == "none":
        return data.scatter(axis, where, updates)
    return data.scatter_reduce(axis, where, updates, _REDUCE[reduction], include_self=True)


def ScatterND(data: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    """`data` with slices `updates` written, or reduced into it, where the last dimension of `indices` says."""
    depth = indices.shape[-1]
    flat = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=data.device)
    for size, index in zip(data.shape[:depth], indices.unbind(-1), strict=True):
        flat = flat * size + _positive(index, size)
    rest = data.shape[depth:]
    rows = data.reshape(-1, rest.numel())
    new = updates.reshape(-1, rest.numel())
    where = flat.reshape(-1, 1).expand_as(new)
    if reduction == "none":
        return rows.scatter(0, where, new).reshape(data.shape)
    return rows.scatter_reduce(0, where, new, _REDUCE[reduction], include_self=True).reshape(data.shape)


def OneHot(indices: Tensor, depth: Tensor, values: Tensor, *, axis: int = -1) -> Tensor:
    """`values` is (off, on); an index outside [-depth, depth) gives all off."""
    count = int(depth.reshape(()).item())
    where = indices.long() + torch.where(indices < 0, count, 0)
    axis = axis + indices.ndim + 1 if axis < 0 else axis
    shape = [1] * (indices.ndim + 1)
    shape[axis] = count
    hit = where.unsqueeze(axis) == torch.arange(count, device=indices.device).reshape(shape)
    return torch.where(hit, values[1], values[0])


def NonZero(x: Tensor) -> Tensor:
    """Indices of the non-zero elements, one row a dimension."""
    return torch.nonzero(x).T.contiguous()


def Compress(x: Tensor, condition: Tensor, *, axis: int | None = None) -> Tensor:
    if axis is None:
        x, axis = x.reshape(-1), 0
    return x.index_select(axis, torch.nonzero(condition).reshape(-1))


def TopK(x: Tensor, k: Tensor, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Tensor, Tensor]:
    """(values, indices) of the k largest or smallest along `axis`; of equals the first index comes first."""
    # torch.topk leaves the order of equals open, and ONNX does not: a stable sort is the rule itself.
    values, indices = torch.sort(x, dim=axis, descending=bool(largest), stable=True)
    count = int(k.reshape(()).item())
    return values.narrow(axis, 0, count), indices.narrow(axis, 0, count)


def ArgMax(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    if select_last_index:
        return x.shape[axis] - 1 - torch.argmax(x.flip(axis), axis, keepdim=bool(keepdims))
    return torch.argmax(x, axis, keepdim=bool(keepdims))


def ArgMin(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    if select_last_index:
        return x.shape[axis] - 1 - torch.argmin(x.flip(axis), axis, keepdim=bool(keepdims))
    return torch.argmin(x, axis, keepdim=bool(keepdims))


def Trilu(x: Tensor, k: Tensor | None = None, *, upper: int = 1) -> Tensor:
    diagonal = int(k.item()) if k is not None else 0
    return torch.triu(x, diagonal) if upper else torch.tril(x, diagonal)


def Range(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """start, start + delta, … up to but not including `limit`."""
    first, last, step = start.item(), limit.item(), delta.item()
    if step == 0:
        raise ValueError("Range needs a delta other than 0")
    count = max(-int(-(last - first) // step), 0)
    return start + torch.arange(count, dtype=start.dtype, device=start.device) * delta
