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


class TooLargeError(ValueError):
    """A tensor would exceed LIMIT."""


def bounded() -> AbstractContextManager[object]:
    """Inside, every torch operator first runs on shapes alone, and is refused if a result would exceed LIMIT."""
    mode: AbstractContextManager[object] = _Bounded()  # type: ignore[no-untyped-call]
    return mode


class _Bounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        for result in tree_leaves(_shapes_only(func, args, options)):
            if isinstance(result, Tensor) and math.prod(result.shape) * result.element_size() > LIMIT:
                raise TooLargeError(f"a tensor of shape {tuple(result.shape)} is too large")
        return func(*args, **options)


def _shapes_only(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    if func.is_view:
        return None
    shapes = tree_map_only(Tensor, _on_meta, (list(args), dict(kwargs)))
    if "device" in shapes[1]:
        shapes[1]["device"] = "meta"
    try:
        return func(*shapes[0], **shapes[1])
    except (RuntimeError, NotImplementedError, ValueError, IndexError, TypeError):
        # Either the result depends on values, and is no larger than they are, or the real run fails the same way.
        return None


def _on_meta(x: Tensor) -> Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
