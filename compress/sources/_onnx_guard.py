"""A run of a stranger's graph that cannot eat the machine's memory."""
# ruff: noqa: ANN401 - torch's dispatch takes anything

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

LIMIT = 4 * 2**30
"""Bytes of the largest single tensor that loading a model may make."""

_REDUCTION = getattr(torch.Tag, "reduction", None)
_NO_LARGER = (
    torch.ops.aten.native_batch_norm.default,
    torch.ops.aten.native_group_norm.default,
    torch.ops.aten.native_layer_norm.default,
)
_PRODUCTS = (torch.ops.aten.addmm.default, torch.ops.aten.bmm.default, torch.ops.aten.mm.default)


class TooLargeError(ValueError):
    """A tensor would exceed LIMIT."""


def require_bounded(results: Any) -> None:
    """Raises TooLargeError if any tensor in `results` exceeds LIMIT."""
    for result in tree_leaves(results):
        if isinstance(result, Tensor) and math.prod(result.shape) * result.element_size() > LIMIT:
            raise TooLargeError(f"a tensor of shape {tuple(result.shape)} is too large")


def bounded() -> AbstractContextManager[object]:
    """Inside, every torch operator first runs on shapes alone, and is refused if a result would exceed LIMIT."""
    mode: AbstractContextManager[object] = _Bounded()  # type: ignore[no-untyped-call]
    return mode


class _Bounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing here is compiled, and to tell the compiler so torch would import it first, for a second."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        require_bounded(_shapes_only(func, args, options))
        return func(*args, **options)


def _shapes_only(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Results without data; None where they cannot be large or only a real run can tell.

    torch's own shape functions are slow, and some import its compiler: they are asked last.
    """
    if func.is_view or func in _NO_LARGER or _REDUCTION in func.tags:
        return None
    leaves = tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if torch.Tag.pointwise in func.tags:
        return _empty(_broadcast(tensors))
    if func in _PRODUCTS:
        a, b = tensors[-2:]
        return _empty([*a.shape[:-1], b.shape[-1]])
    if _at_most(leaves) * torch.float64.itemsize <= LIMIT:
        return None
    return _traced(func, args, kwargs)


def _at_most(leaves: Sequence[Any]) -> float:
    """No operator makes more elements than this product of all its sizes and numbers."""
    numbers = (leaf for leaf in leaves if isinstance(leaf, int | float))
    sizes = (leaf.numel() for leaf in leaves if isinstance(leaf, Tensor))
    return math.prod(float(abs(n)) + 1 for n in numbers) * math.prod(float(max(n, 1)) for n in sizes)


def _traced(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    shapes = tree_map_only(Tensor, _on_meta, (list(args), dict(kwargs)))
    if "device" in shapes[1]:
        shapes[1]["device"] = "meta"
    try:
        return func(*shapes[0], **shapes[1])
    except (RuntimeError, ValueError, IndexError, TypeError):
        # What torch raises for a meta tensor that it has no kernel or no shape for.
        # Either the result depends on values, and is no larger than they are, or the real run fails the same way.
        return None


def _broadcast(tensors: Sequence[Tensor]) -> list[int]:
    rank = max((x.ndim for x in tensors), default=0)
    shapes = [(1,) * (rank - x.ndim) + tuple(x.shape) for x in tensors]
    return [max(dims) for dims in zip(*shapes, strict=True)]


def _empty(shape: Sequence[int]) -> Tensor:
    return torch.empty((), device="meta").expand(shape)


def _on_meta(x: Tensor) -> Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
