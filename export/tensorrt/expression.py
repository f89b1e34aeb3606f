"""Sizes that are known only when an engine runs, as numbers to calculate with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Number = Any
"""An int or an Expression."""


class Expression:
    """A size of the package's, `value`; `build` makes a sum, product or whole quotient of two: of the operation's name
    in TensorRT, a value, and a value or an int.
    """

    def __init__(self, build: Callable[[str, Any, Any], Any], value: Any) -> None:
        self._build, self.value = build, value

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
        return Expression(self._build, self._build(operation, self.value, plain(other)))


def plain(number: Number) -> Any:
    """The package's value, or the int."""
    return number.value if isinstance(number, Expression) else int(number)
