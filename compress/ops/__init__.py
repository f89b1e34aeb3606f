"""ONNX operators (opset 21) as differentiable torch functions, one function an operator.

`find("Concat")` returns the function; a function's name is its operator's name, its positional parameters are the
operator's inputs in ONNX order, its keyword-only parameters the attributes with ONNX's defaults. The functions
are found by listing the files of this folder, and the modules that packages name as `convkit.ops`.
"""

import functools
from collections.abc import Callable
from typing import Any

from convkit.compress import parts


@functools.cache
def _operators() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {}
    for name in parts.names("compress/ops"):
        module = parts.module("compress/ops", name)
        found |= {
            key: value
            for key, value in vars(module).items()
            if key[0].isupper() and callable(value) and getattr(value, "__module__", "") == module.__name__
        }
    return found


def names() -> list[str]:
    """Operators there are."""
    return sorted(_operators())


def find(operator: str) -> Callable[..., Any] | None:
    """The function that computes `operator`, or None."""
    return _operators().get(operator)


def function(operator: str) -> Callable[..., Any]:
    """The function that computes `operator`, which the vocabulary is known to hold."""
    return _operators()[operator]
