"""What a node of a Model reads and writes: shapes, and bytes in the types that are really stored.

In a quantized graph a tensor between QuantizeLinear and DequantizeLinear is stored as its codes; the operators around
read and write those, as an engine that fuses them does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from convkit.compress import graph as graphs
from convkit.compress.model import TensorSpec

_Q, _DQ = "QuantizeLinear", "DequantizeLinear"
_FROM_CODES = (_DQ, "Cast", "Mul")
_SETTINGS = frozenset({"Clip", "Pad", "Resize", _Q, _DQ})
"""Operators whose constant inputs are settings, not trained parameters."""


@dataclass(frozen=True, slots=True, eq=False)
class Operand:
    """One input or result of a node; `constant` is its tensor where no input of the model reaches it.

    `trained` constants count as parameters: float ones that are no scalars, and the codes of dequantized weights.
    """

    shape: tuple[int, ...]
    itemsize: int
    constant: Tensor | None = None
    trained: bool = False
    present: bool = True

    @property
    def elements(self) -> int:
        """Elements it holds."""
        return math.prod(self.shape) if self.present else 0

    @property
    def bytes(self) -> int:
        """Bytes it takes."""
        return self.elements * self.itemsize


_ABSENT = Operand((), 0, present=False)


def is_constant(node: fx.Node) -> bool:
    """Whether `node` only makes numbers of stored codes: dequantizes, or casts and multiplies by a stored scale."""
    inputs = [arg for arg in node.args if isinstance(arg, fx.Node)]
    return (
        graphs.operator(node) in _FROM_CODES
        and bool(inputs)
        and all(graphs.constant(arg) is not None or is_constant(arg) for arg in inputs)
    )


def operands(node: fx.Node) -> list[Operand]:
    """Inputs of `node` in ONNX order, the weights of a layer behind its activations."""
    operator = graphs.operator(node)
    found = [_operand(arg, operator) for arg in _flat(node.args)]
    layer = graphs.module(node)
    if layer is None:
        return found
    held = [*layer.parameters(), *(buffer for buffer in layer.buffers() if buffer.is_floating_point())]
    return found + [Operand(tuple(t.shape), t.itemsize, t, isinstance(t, nn.Parameter)) for t in held]


def results(node: fx.Node) -> list[Operand]:
    """Tensors that `node` makes."""
    made = [node] if "tensor" in node.meta else [user for user in node.users if "tensor" in user.meta]
    return [_activation(one, _stored_as(one)) for one in made]


def fused(node: fx.Node) -> bool:
    """Whether an engine quantizes or dequantizes within the operator before or behind `node`, moving nothing twice."""
    operator = graphs.operator(node)
    if operator == _Q:
        before = node.args[0]
        return isinstance(before, fx.Node) and bool(graphs.operator(before)) and _stored_as(before) is node
    return operator == _DQ and all(graphs.operator(user) not in {"", _Q} for user in node.users)


def _operand(arg: Any, operator: str) -> Operand:  # noqa: ANN401 - fx arguments are anything
    if not isinstance(arg, fx.Node):
        return _ABSENT
    tensor = graphs.constant(_codes(arg))
    if tensor is not None:
        trained = operator not in _SETTINGS and (is_constant(arg) or _is_trained(tensor, operator))
        return Operand(tuple(tensor.shape), tensor.itemsize, tensor, trained)
    source = arg.args[0] if graphs.operator(arg) == _DQ else arg
    return _activation(arg, source if isinstance(source, fx.Node) else arg)


def _codes(node: fx.Node) -> fx.Node:
    """The codes that a constant `node` is made of, else `node` itself."""
    while is_constant(node):
        node = node.args[0]  # type: ignore[assignment]
    return node


def _is_trained(tensor: Tensor, operator: str) -> bool:
    if tensor.is_floating_point():
        return isinstance(tensor, nn.Parameter) or tensor.numel() > 1
    return operator in {"ConvInteger", "MatMulInteger"} and tensor.ndim > 1


def _activation(node: fx.Node, stored: fx.Node) -> Operand:
    """The tensor of `node`, in the type of the node that it is stored as."""
    shape, spec = graphs.shape(node), stored.meta.get("tensor")
    if shape is None or not isinstance(spec, TensorSpec):
        return _ABSENT
    return Operand(shape, _itemsize(spec.dtype))


def _stored_as(node: fx.Node) -> fx.Node:
    """The QuantizeLinear that alone reads `node`, else `node` itself."""
    users = list(node.users)
    return users[0] if users and all(graphs.operator(user) == _Q for user in users) else node


def _itemsize(dtype: str) -> int:
    found: torch.dtype = getattr(torch, dtype)
    return found.itemsize


def _flat(args: Any) -> Iterator[Any]:  # noqa: ANN401 - fx arguments are anything
    for arg in args:
        if isinstance(arg, list | tuple):
            yield from _flat(arg)
        else:
            yield arg
