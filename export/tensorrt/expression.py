"""Sizes that are known only when an engine runs, as numbers to calculate with."""

from __future__ import annotations

from typing import Any

Number = Any
"""An int or an Expression."""


class Expression:
    """A size of the package's, `value`, and what builds sums, products and whole quotients of such."""

    def __init__(self, trt: Any, builder: Any, value: Any) -> None:
        self._trt, self._builder, self.value = trt, builder, value

    def __add__(self, other: Number) -> Expression:
        return self._made("SUM", other)

    def __sub__(self, other: Number) -> Expression:
        return self._made("SUB", other)

    def __mul__(self, other: Number) -> Expression:
        return self._made("PROD", other)

    def __floordiv__(self, other: Number) -> Expression:
        return self._made("FLOOR_DIV", other)

    __radd__, __rmul__ = __add__, __mul__

    def _made(self, operation: str, other: Number) -> Expression:
        kind = getattr(self._trt.DimensionOperation, operation)
        right = other.value if isinstance(other, Expression) else self._builder.constant(int(other))
        return Expression(self._trt, self._builder, self._builder.operation(kind, self.value, right))
