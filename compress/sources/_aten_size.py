"""Free sizes (N, height, width and what follows from them) as int64 tensors of the graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

if TYPE_CHECKING:
    import sympy  # type: ignore[import-untyped]

    from convkit.compress.sources._aten_graph import Builder, Operand, Size

_OPERATORS = {
    "Add": "Add", "Mul": "Mul", "FloorDiv": "Div", "CleanDiv": "Div", "IntTrueDiv": "Div",
    "Mod": "Mod", "PythonMod": "Mod", "Max": "Max", "Min": "Min",
}  # fmt: skip


def same(one: Size, other: Size) -> bool:
    """Whether two sizes are equal whatever the inputs' sizes."""
    return bool(expression(one) == expression(other))


def expression(dim: Size) -> Any:  # noqa: ANN401 - an int or a sympy expression, which compare
    """`dim` as an int, or as the formula of a free size."""
    if isinstance(dim, torch.SymInt):
        formula = dim.node.expr
        return int(formula) if formula.is_number else formula
    return int(dim)


def write(builder: Builder, formula: sympy.Expr) -> Operand:
    """A 1-D int64 tensor with the value of `formula`: a size some tensor at hand has, or computed from such."""
    if formula.is_number:
        return builder.integers(int(formula))
    for x in [*builder.operands, *builder.inputs]:
        if isinstance(x, fx.Node) and (axis := _axis(x, formula)) is not None:
            return builder.op("Shape", x, start=axis, end=axis + 1)
    return _compute(builder, formula)


def _axis(x: fx.Node, formula: sympy.Expr) -> int | None:
    dims = getattr(x.meta.get("val"), "shape", ())
    return next((i for i, dim in enumerate(dims) if expression(dim) == formula), None)


def _compute(builder: Builder, formula: sympy.Expr) -> Operand:
    kind = type(formula).__name__
    if kind in {"Pow", "PowByNatural"} and formula.args[1].is_Integer and formula.args[1] > 0:
        terms = [formula.args[0]] * int(formula.args[1])
        kind = "Mul"
    elif kind in _OPERATORS:
        terms = list(formula.args)
    else:
        raise builder.refuse(f"the size {formula}")
    result = write(builder, terms[0])
    for term in terms[1:]:
        divisor = write(builder, term)
        if kind == "FloorDiv":  # ONNX cuts off towards nothing, which for a negative size is not down
            result = builder.op("Sub", result, builder.op("Mod", result, divisor))
        result = builder.op(_OPERATORS[kind], result, divisor)
    return result


def spell(dim: Size, names: Mapping[str, str]) -> int | str:
    """A size as users read it: an int, or a formula in the names of the inputs' free sizes."""
    formula = expression(dim)
    if isinstance(formula, int):
        return formula
    symbols = {s: _symbol(names.get(str(s), str(s))) for s in formula.free_symbols}
    return str(formula.xreplace(symbols))


def evaluate(dim: Size, samples: Mapping[str, int]) -> int:
    """A size where the free sizes are those of the sample."""
    formula = expression(dim)
    if isinstance(formula, int):
        return formula
    return int(formula.xreplace({s: _integer(samples[str(s)]) for s in formula.free_symbols}))


def _symbol(name: str) -> sympy.Symbol:
    """A sympy symbol; torch itself depends on sympy."""
    import sympy

    return sympy.Symbol(name, integer=True, positive=True)


def _integer(number: int) -> sympy.Integer:
    import sympy

    return sympy.Integer(number)
