"""Matrix products and attention."""
# ruff: noqa: PLR0913, PLR0917 - functions take the arguments of aten's schemas

from __future__ import annotations

from collections.abc import Sequence

import torch

from convkit.compress.sources._aten import Result, Translate
from convkit.compress.sources._aten_graph import Builder, Number, Operand, shape, value


def _matmul(b: Builder, x: Operand, y: Operand) -> Result:
    return b.op("MatMul", x, y)


def _addmm(b: Builder, c: Operand, x: Operand, y: Operand, beta: Number, alpha: Number) -> Result:
    return b.op("Gemm", x, y, c, alpha=float(alpha), beta=float(beta))


def _baddbmm(b: Builder, c: Operand, x: Operand, y: Operand, beta: Number, alpha: Number) -> Result:
    dtype = value(x).dtype
    product: Operand = b.op("MatMul", x, y)
    product = product if alpha == 1 else b.op("Mul", product, b.cast(alpha, dtype))
    return b.op("Add", c if beta == 1 else b.op("Mul", c, b.cast(beta, dtype)), product)


def _einsum(b: Builder, equation: str, tensors: Sequence[Operand], *_: object) -> Result:
    return b.op("Einsum", *tensors, equation=equation.replace(" ", ""))


def _attention(
    b: Builder,
    q: Operand,
    k: Operand,
    v: Operand,
    mask: Operand | None,
    dropout: float,
    causal: bool,
    scale: float | None = None,
    grouped: bool = False,
) -> Result:
    """softmax(q kᵀ · scale + mask) v over the last two axes of q [… L, E], k [… S, E], v [… S, Ev]."""
    if grouped or (dropout and not isinstance(dropout, int)):
        raise b.refuse("grouped-query attention, or attention with dropout,")
    rank, width = len(shape(q)), shape(q)[-1]
    if scale is None and not isinstance(width, int):
        raise b.refuse("attention over vectors of a free size")
    factor = scale if scale is not None else float(width) ** -0.5
    turned = b.op("Transpose", k, perm=[*range(len(shape(k)) - 2), len(shape(k)) - 1, len(shape(k)) - 2])
    scores: Operand = b.op("MatMul", b.op("Mul", q, b.constant(factor, value(q).dtype)), turned)
    mask = _causal(b, q, k) if causal else mask
    if mask is not None:
        scores = _masked(b, scores, mask, value(q).dtype)
    return b.op("MatMul", b.op("Softmax", scores, axis=rank - 1), v)


def _causal(b: Builder, q: Operand, k: Operand) -> Operand:
    rows, columns = shape(q)[-2], shape(k)[-2]
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise b.refuse("causal attention over a free length")
    return b.constant(torch.ones(rows, columns).tril().tolist(), torch.bool)


def _masked(b: Builder, scores: Operand, mask: Operand, dtype: torch.dtype) -> Operand:
    """A boolean mask says which places take part; a float one is added."""
    if value(mask).dtype == torch.bool:
        return b.op("Where", mask, scores, b.constant(float("-inf"), dtype))
    return b.op("Add", scores, mask)


TABLE: dict[str, Translate] = {
    "matmul": _matmul, "mm": _matmul, "bmm": _matmul, "mv": _matmul, "dot": _matmul, "addmm": _addmm,
    "baddbmm": _baddbmm, "einsum": _einsum, "scaled_dot_product_attention": _attention,
}  # fmt: skip
