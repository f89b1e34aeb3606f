"""Arithmetic, comparison and choice of two tensors or a tensor and a number."""

from __future__ import annotations

from typing import Any

import torch

from convkit.compress.sources._aten import Result, Translate
from convkit.compress.sources._aten_graph import Builder, Constant, Number, Operand, value

Term = Operand | Number


def _both(b: Builder, x: Term, y: Term) -> tuple[Operand, Operand]:
    """Both terms in the type of the result."""
    return b.cast(x, b.val.dtype), b.cast(y, b.val.dtype)


def _scaled(b: Builder, y: Term, alpha: Number) -> Term:
    if alpha == 1:
        return y
    return b.op("Mul", b.cast(y, b.val.dtype), b.cast(alpha, b.val.dtype))


def _add(b: Builder, x: Term, y: Term, alpha: Number) -> Result:
    if b.val.dtype == torch.bool:
        return b.op("Or", *_both(b, x, y))
    return b.op("Add", b.cast(x, b.val.dtype), b.cast(_scaled(b, y, alpha), b.val.dtype))


def _sub(b: Builder, x: Term, y: Term, alpha: Number) -> Result:
    return b.op("Sub", b.cast(x, b.val.dtype), b.cast(_scaled(b, y, alpha), b.val.dtype))


def _rsub(b: Builder, x: Term, y: Term, alpha: Number) -> Result:
    return b.op("Sub", b.cast(y, b.val.dtype), b.cast(_scaled(b, x, alpha), b.val.dtype))


def _mul(b: Builder, x: Term, y: Term) -> Result:
    return b.op("And" if b.val.dtype == torch.bool else "Mul", *_both(b, x, y))


def _div(b: Builder, x: Term, y: Term, rounding_mode: str | None = None) -> Result:
    quotient = b.op("Div", *_both(b, x, y))
    if rounding_mode is None:
        return quotient
    if not b.val.dtype.is_floating_point:
        raise b.refuse("a rounded division of integers")
    if rounding_mode == "floor":
        return b.op("Floor", quotient)
    return b.op("Mul", b.op("Sign", quotient), b.op("Floor", b.op("Abs", quotient)))


def _floor_divide(b: Builder, x: Term, y: Term) -> Result:
    return _div(b, x, y, "floor")


def _remainder(b: Builder, x: Term, y: Term) -> Result:
    """torch's remainder has the divisor's sign, as ONNX's Mod of integers; for floats it is written out."""
    x, y = _both(b, x, y)
    if not b.val.dtype.is_floating_point:
        return b.op("Mod", x, y)
    return b.op("Sub", x, b.op("Mul", b.op("Floor", b.op("Div", x, y)), y))


def _pow(b: Builder, x: Term, exponent: Term) -> Result:
    """Squares and roots in the forms every engine has a kernel for."""
    base = b.cast(x, b.val.dtype)
    if isinstance(exponent, int | float):
        if exponent == 2:  # noqa: PLR2004 - a square
            return b.op("Mul", base, base)
        if exponent == 0.5:  # noqa: PLR2004 - a root
            return b.op("Sqrt", base)
        if exponent == -0.5:  # noqa: PLR2004 - its inverse
            return b.op("Reciprocal", b.op("Sqrt", base))
    return b.op("Pow", base, b.cast(exponent, b.val.dtype))


def _extreme(operator: str) -> Translate:
    return lambda b, x, y: b.op(operator, *_both(b, x, y))


def _common(b: Builder, x: Term, y: Term) -> tuple[Operand, Operand]:
    """Both terms in the type torch compares them in."""
    kinds = [value(t) if isinstance(t, torch.fx.Node | Constant) else t for t in (x, y)]
    one, other = (_stand_in(kind) for kind in kinds)
    dtype = torch.result_type(one, other)
    return b.cast(x, dtype), b.cast(y, dtype)


def _stand_in(kind: Any) -> Any:  # noqa: ANN401 - a tensor or a number
    """A real tensor for a fake one: only rank and type count in promotion."""
    if isinstance(kind, torch.Tensor):
        return torch.empty([1] * kind.ndim, dtype=kind.dtype)
    return int(kind) if isinstance(kind, torch.SymInt) else kind


def _compare(operator: str) -> Translate:
    return lambda b, x, y: b.op(operator, *_common(b, x, y))


def _not_equal(b: Builder, x: Term, y: Term) -> Result:
    return b.op("Not", b.op("Equal", *_common(b, x, y)))


def _logical(operator: str) -> Translate:
    def translate(b: Builder, x: Term, y: Term) -> Result:
        if b.val.dtype != torch.bool:
            raise b.refuse("a bitwise operation on integers")
        return b.op(operator, b.cast(x, torch.bool), b.cast(y, torch.bool))

    return translate


def _where(b: Builder, condition: Operand, x: Term, y: Term) -> Result:
    return b.op("Where", condition, *_both(b, x, y))


def _masked_fill(b: Builder, x: Operand, mask: Operand, fill: Term) -> Result:
    return b.op("Where", mask, b.cast(fill, b.val.dtype), x)


TABLE: dict[str, Translate] = {
    "add": _add, "sub": _sub, "subtract": _sub, "rsub": _rsub, "mul": _mul, "multiply": _mul,
    "div": _div, "divide": _div, "true_divide": _div, "floor_divide": _floor_divide, "remainder": _remainder,
    "pow": _pow, "maximum": _extreme("Max"), "minimum": _extreme("Min"), "max.other": _extreme("Max"),
    "min.other": _extreme("Min"),
    "gt": _compare("Greater"), "lt": _compare("Less"), "eq": _compare("Equal"),
    "ge": _compare("GreaterOrEqual"), "le": _compare("LessOrEqual"), "ne": _not_equal,
    "logical_and": _logical("And"), "logical_or": _logical("Or"), "logical_xor": _logical("Xor"),
    "bitwise_and": _logical("And"), "bitwise_or": _logical("Or"),
    "where.self": _where, "where.ScalarOther": _where, "where.ScalarSelf": _where, "where.Scalar": _where,
    "masked_fill": _masked_fill,
}  # fmt: skip
