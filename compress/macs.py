"""Multiply-accumulates of one operator on given shapes, exact: a bias, a norm or an activation counts none.

Convolutions count what their kernel slides over, padding included, as the field's tables do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Shape = tuple[int, ...]
Shapes = Sequence[Shape]
"""Shapes of an operator's inputs in ONNX order, () for an absent one."""


def count(operator: str, inputs: Shapes, output: Shape, attributes: Mapping[str, Any]) -> int:
    """MACs of `operator`; 0 for one that multiplies nothing by a weight or another tensor's rows."""
    rule = _RULES.get(operator)
    return rule(inputs, output, attributes) if rule else 0


def _conv(inputs: Shapes, output: Shape, _: Mapping[str, Any]) -> int:
    """w [M, C/group, …]: each output takes a kernel over its group's channels."""
    return math.prod(output) * math.prod(inputs[1][1:])


def _transposed(inputs: Shapes, _output: Shape, _: Mapping[str, Any]) -> int:
    """w [C, M/group, …]: each input gives a kernel to its group's channels."""
    return math.prod(inputs[0]) * math.prod(inputs[1][1:])


def _matmul(inputs: Shapes, output: Shape, _: Mapping[str, Any]) -> int:
    return math.prod(output) * inputs[0][-1]


def _gemm(inputs: Shapes, output: Shape, attributes: Mapping[str, Any]) -> int:
    return math.prod(output) * inputs[0][0 if attributes.get("transA") else 1]


def _einsum(inputs: Shapes, output: Shape, attributes: Mapping[str, Any]) -> int:
    """The product of all indices' sizes, once per operand after the first."""
    left, _, right = str(attributes["equation"]).replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    for term, shape in zip(left.split(","), inputs, strict=True):
        before, dots, after = term.partition("...")
        sizes |= dict(zip(before, shape, strict=False))
        if dots and after:
            sizes |= dict(zip(after, shape[-len(after) :], strict=True))
    spread = len(output) - len(right.replace("...", "")) if "..." in right else 0
    at = right.find("...")
    broadcast = math.prod(output[at : at + spread]) if spread else 1
    return math.prod(sizes.values()) * broadcast * (len(inputs) - 1)


def _recurrent(inputs: Shapes, _output: Shape, _: Mapping[str, Any]) -> int:
    """x [steps, N, I], w [directions, gates·H, I], r [directions, gates·H, H]."""
    steps, batch = inputs[0][:2]
    return steps * batch * (math.prod(inputs[1]) + math.prod(inputs[2]))


_RULES: dict[str, Callable[[Shapes, Shape, Mapping[str, Any]], int]] = {
    "Conv": _conv,
    "ConvInteger": _conv,
    "ConvTranspose": _transposed,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
}
