"""Tensors made in forward whose size is free; those of fixed size are constants before they come here."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from convkit.compress.sources._aten import Result, Translate
from convkit.compress.sources._aten_graph import Builder, Number, Operand, Size


def _filled(b: Builder, fill: Number) -> Operand:
    scalar = b.cast(fill, b.val.dtype)
    return b.op("Expand", scalar, b.sizes(tuple(b.val.shape)))


def _constant(fill: float) -> Translate:
    return lambda b, *_: _filled(b, fill)


def _full(b: Builder, _sizes: Sequence[Size], fill: Number, *_: object) -> Result:
    return _filled(b, fill)


def _full_like(b: Builder, _x: Operand, fill: Number, *_: object) -> Result:
    return _filled(b, fill)


def _new_full(b: Builder, _x: Operand, _sizes: Sequence[Size], fill: Number, *_: object) -> Result:
    return _filled(b, fill)


def _range(b: Builder, begin: Number, end: Number, step: Number) -> Operand:
    terms = []
    for term in (begin, end, step):
        number = b.op("Squeeze", b.size(term)) if isinstance(term, torch.SymInt) else b.constant(term, torch.int64)
        terms.append(number)
    if any(isinstance(term, float) for term in (begin, end, step)):
        raise b.refuse("an arange by fractions up to a free size")
    counted = b.op("Range", *terms)
    counted.meta["val"] = torch.empty(0, dtype=torch.int64)
    return b.cast(counted, b.val.dtype)


def _arange(b: Builder, end: Number, *_: object) -> Result:
    return _range(b, 0, end, 1)


def _arange_from(b: Builder, begin: Number, end: Number, *_: object) -> Result:
    return _range(b, begin, end, 1)


def _arange_step(b: Builder, begin: Number, end: Number, step: Number, *_: object) -> Result:
    return _range(b, begin, end, step)


TABLE: dict[str, Translate] = {
    "zeros": _constant(0), "ones": _constant(1), "zeros_like": _constant(0), "ones_like": _constant(1),
    "new_zeros": _constant(0), "new_ones": _constant(1), "full": _full, "full_like": _full_like,
    "new_full": _new_full, "arange.default": _arange, "arange.start": _arange_from, "arange.start_step": _arange_step,
}  # fmt: skip
