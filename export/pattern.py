"""Nodes of an ONNX file that together are something known: what a kernel looks for.

`P("Mul", "x", P("Sigmoid", "x"))` is SiLU: a string is a tensor, the same one wherever it stands; one that begins with
`$` is a constant. Operands of sums, products and maxima may stand in either order, and
casts from one floating type to another anywhere: a tensor is then the one that was cast.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx

_EITHER = ("Add", "Mul", "Max")
_FLOATS = ("float16", "bfloat16")
_ALL_FLOATS = ("float32", *_FLOATS)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A node of the operator `op` and what makes its first inputs; `called`: a name for what it makes, or none."""

    op: str
    inputs: tuple[Pattern | str, ...]
    called: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    """The nodes, each once and the last one first, and tensors by their names in the pattern."""

    nodes: tuple[onnx.NodeProto, ...] = ()
    bound: Mapping[str, str] = field(default_factory=dict)


def P(op: str, *inputs: Pattern | str, called: str = "") -> Pattern:  # noqa: N802 - it is written many times
    """A Pattern."""
    return Pattern(op, inputs, called)


class Network:
    """An ONNX file as patterns look at it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        from convkit.export import lint

        self.nodes: Sequence[onnx.NodeProto] = list(model.graph.node)
        self._file = lint.described(model)
        self._leaving = {output.name for output in model.graph.output}

    def maker(self, name: str) -> onnx.NodeProto | None:
        return self._file.makers.get(name)

    def readers(self, name: str) -> int:
        """How many nodes read a tensor; that it leaves the network counts as one."""
        return len(self._file.readers.get(name, [])) + (name in self._leaving)

    def constant(self, name: str) -> np.ndarray | None:
        """The numbers of a constant, floating ones in float32; None for what is none."""
        held = self._file.constant(name)
        return held.astype("float32") if held is not None and self.dtype(name) in _FLOATS else held

    def tensor(self, name: str) -> onnx.TensorProto:
        """A constant as the file holds it."""
        return self._file.tensors[name]

    def is_constant(self, name: str) -> bool:
        return name in self._file.tensors

    def dtype(self, name: str) -> str:
        """As numpy and torch call it: float32."""
        kind = self._file.kind(name)
        return {"FLOAT": "float32"}.get(kind, kind.lower())

    def shape(self, name: str) -> tuple[int, ...]:
        """Sizes, 0 for those that are free."""
        return self._file.shapes.get(name, ())

    def find(self, node: onnx.NodeProto, *patterns: Pattern) -> Match | None:
        """`node` as the first of the patterns that it is."""
        found = (match for pattern in patterns for match in self._at(node, pattern, Match()))
        first = next(found, None)
        if first is None:
            return None
        return Match(tuple({each.output[0]: each for each in first.nodes}.values()), first.bound)

    def _at(self, node: onnx.NodeProto, pattern: Pattern, so_far: Match) -> Iterator[Match]:
        if node.op_type != pattern.op or node.domain or len(node.input) < len(pattern.inputs):
            return
        bound = dict(so_far.bound)
        if pattern.called and bound.setdefault(pattern.called, node.output[0]) != node.output[0]:
            return
        own = Match((*so_far.nodes, node), bound)
        orders = itertools.permutations(pattern.inputs) if node.op_type in _EITHER else [pattern.inputs]
        for order in orders:
            yield from self._inputs(list(zip(node.input, order, strict=False)), own)

    def _inputs(self, left: Sequence[tuple[str, Pattern | str]], so_far: Match) -> Iterator[Match]:
        if not left:
            yield so_far
            return
        (name, wanted), rest = left[0], left[1:]
        while (cast := self.maker(name)) is not None and self._is_cast(cast):
            name, so_far = cast.input[0], Match((*so_far.nodes, cast), so_far.bound)
        if isinstance(wanted, Pattern):
            maker = self.maker(name)
            found = iter(()) if maker is None else self._at(maker, wanted, so_far)
        else:
            found = self._tensor(name, wanted, so_far)
        for match in found:
            yield from self._inputs(rest, match)

    def _is_cast(self, node: onnx.NodeProto) -> bool:
        ends = self.dtype(node.input[0]), self.dtype(node.output[0])
        return node.op_type == "Cast" and all(kind in _ALL_FLOATS for kind in ends)

    def _tensor(self, name: str, wanted: str, so_far: Match) -> Iterator[Match]:
        if wanted.startswith("$") and not self.is_constant(name):
            return
        if so_far.bound.get(wanted, name) == name:
            yield Match(so_far.nodes, {**so_far.bound, wanted: name})


def operand(node: onnx.NodeProto, place: int) -> str:
    """What `node` reads at a place; "" where it reads nothing."""
    return node.input[place] if len(node.input) > place else ""


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Of a node, by name."""
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
