"""Operators that only name, order or lay out elements."""
# ruff: noqa: N802 - functions are named after their ONNX operators

from collections.abc import Sequence

import torch
from torch import Tensor


def Identity(x: Tensor) -> Tensor:
    return x


def Shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    """The dimensions [start, end) as an int64 vector."""
    return torch.tensor(list(x.shape)[start:end], dtype=torch.int64, device=x.device)


def Size(x: Tensor) -> Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64, device=x.device)


def Reshape(x: Tensor, shape: Tensor, *, allowzero: int = 0) -> Tensor:
    """-1 is inferred; 0 keeps the input's dimension unless `allowzero`."""
    sizes = [int(size) for size in shape.tolist()]
    if not allowzero:
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return x.reshape(sizes)


def Flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    """Two dimensions: those before `axis` and those from it on."""
    axis = axis + x.ndim if axis < 0 else axis
    rows = 1
    for size in x.shape[:axis]:
        rows *= size
    return x.reshape(rows, x.numel() // rows if rows else 0)


def Transpose(x: Tensor, *, perm: Sequence[int] | None = None) -> Tensor:
    """Without `perm` the dimensions are reversed."""
    return x.permute(list(perm) if perm is not None else list(range(x.ndim))[::-1])


def Squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Drop the dimensions `axes`, each of size 1, or every dimension of size 1."""
    if axes is None:
        return x.squeeze()
    dims = [int(axis) for axis in axes.reshape(-1).tolist()]
    if any(x.shape[dim] != 1 for dim in dims):
        raise ValueError(f"cannot squeeze axes {dims} of shape {tuple(x.shape)}")
    return x.squeeze(dims)


def Unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    """Insert dimensions of size 1 at `axes`, counted in the result."""
    listed = [int(axis) for axis in axes.reshape(-1).tolist()]
    rank = x.ndim + len(listed)
    for axis in sorted(axis + rank if axis < 0 else axis for axis in listed):
        x = x.unsqueeze(axis)
    return x


def Expand(x: Tensor, shape: Tensor) -> Tensor:
    """Broadcast in both directions: a 1 in `shape` keeps the input's dimension."""
    wanted = [int(size) for size in shape.tolist()]
    rank = max(len(wanted), x.ndim)
    wanted = [1] * (rank - len(wanted)) + wanted
    held = [1] * (rank - x.ndim) + list(x.shape)
    return x.expand([have if want == 1 else want for have, want in zip(held, wanted, strict=True)])


def Tile(x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat([int(count) for count in repeats.tolist()])


def Concat(*inputs: Tensor, axis: int) -> Tensor:
    return torch.cat(inputs, axis)


def Split(
    x: Tensor, split: Tensor | None = None, *, axis: int = 0, num_outputs: int | None = None
) -> tuple[Tensor, ...]:
    """Parts of the sizes in `split`, or `num_outputs` equal parts of which the last may be smaller."""
    if split is not None:
        return torch.split(x, [int(size) for size in split.tolist()], axis)
    if num_outputs is None or num_outputs < 1:
        raise ValueError("Split needs its sizes or num_outputs")
    size = -(-x.shape[axis] // num_outputs)
    return torch.split(x, size, axis)


def DepthToSpace(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """[N, C·b², H, W] to [N, C, H·b, W·b]; the depth holds (b, b, C) in mode DCR and (C, b, b) in CRD."""
    n, depth, height, width = x.shape
    b, channels = blocksize, depth // blocksize**2
    if mode == "CRD":
        blocks = x.reshape(n, channels, b, b, height, width).permute(0, 1, 4, 2, 5, 3)
    else:
        blocks = x.reshape(n, b, b, channels, height, width).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, channels, height * b, width * b)


def SpaceToDepth(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """[N, C, H·b, W·b] to [N, C·b², H, W], the inverse of DepthToSpace."""
    n, channels, height, width = x.shape
    b = blocksize
    blocks = x.reshape(n, channels, height // b, b, width // b, b)
    order = (0, 1, 3, 5, 2, 4) if mode == "CRD" else (0, 3, 5, 1, 2, 4)
    return blocks.permute(order).reshape(n, channels * b * b, height // b, width // b)
