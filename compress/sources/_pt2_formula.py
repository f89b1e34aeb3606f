"""Formulas of free sizes in a .pt2 file. torch evaluates them as Python, so only these few forms get there."""

from __future__ import annotations

import ast
import re

from convkit.compress.errors import ConvkitError

_FUNCTIONS = {
    "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Max", "Min", "Abs", "FloorDiv", "ModularIndexing",
    "PythonMod", "Mod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv", "FloatTrueDiv", "IntTrueDiv",
    "TruncToFloat", "TruncToInt", "RoundToInt", "ToFloat", "Identity", "Where", "And", "Or", "Not",
    "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality", "GreaterThan", "LessThan", "StrictGreaterThan",
    "StrictLessThan",
}  # fmt: skip
_POWERS = {"Pow", "PowByNatural", "FloatPow"}
_SYMBOL = re.compile(r"[a-z]{1,4}\d{1,9}")
_LONGEST, _LARGEST, _HIGHEST = 20_000, 2**63, 4
_FORMS = (
    ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.UnaryOp, ast.USub, ast.Not,
    ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod,
    ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
)  # fmt: skip


def check(text: str) -> None:
    """Raise ConvkitError unless `text` is arithmetic of sizes: `Add(FloorDiv(Symbol('s0', …), Integer(2)), …)`."""
    try:
        tree = ast.parse(text, mode="eval") if len(text) <= _LONGEST else None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _refused() from error
    if tree is None or not all(map(_is_safe, ast.walk(tree))):
        raise _refused()


def _is_safe(part: ast.AST) -> bool:
    if not isinstance(part, _FORMS):
        return False
    if isinstance(part, ast.Call):
        return _is_safe_call(part)
    if isinstance(part, ast.Name):
        return part.id in _FUNCTIONS | _POWERS or bool(_SYMBOL.fullmatch(part.id))
    return not isinstance(part, ast.Constant) or _is_safe_constant(part.value)


def _is_safe_call(call: ast.Call) -> bool:
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    if name in _POWERS:
        return len(call.args) == 2 and _is_safe_power(*call.args)  # noqa: PLR2004 - base and exponent
    return name in _FUNCTIONS


def _is_safe_power(base: ast.AST, exponent: ast.AST) -> bool:
    """Small and not nested: a high power of a power would never end."""
    nested = any(isinstance(part, ast.Name) and part.id in _POWERS for part in ast.walk(base))
    numbers = [part.value for part in ast.walk(exponent) if isinstance(part, ast.Constant)]
    return not nested and len(numbers) == 1 and isinstance(numbers[0], int) and numbers[0] <= _HIGHEST


def _is_safe_constant(value: object) -> bool:
    if isinstance(value, str):
        return bool(_SYMBOL.fullmatch(value) or re.fullmatch(r"\d{1,18}(\.\d{1,18})?", value))
    return isinstance(value, int | float) and abs(value) < _LARGEST


def _refused() -> ConvkitError:
    return ConvkitError("a size is no formula of sizes", hint="save the program again with torch.export.save")
