"""Sizes that operators are told: where one stands, and whether it can be written anew."""

from __future__ import annotations

from torch import fx

from convkit.compress import graph as graphs
from convkit.compress.shrinking.classes import Along

TOLD = {"Reshape": 1, "Expand": 1, "Resize": 3}
"""Operators that may be told the shape of what they make, and by which argument."""


def writable(node: fx.Node, found: Along) -> bool:
    """Whether the size of the channels' axis can be changed where the node is told its shape, every axis of it."""
    index = sized_by(node)
    if index is None:
        return True
    argument, rank = node.args[index], len(graphs.shape(node) or ())
    told = graphs.constant(argument)
    length = graphs.shape(argument) if told is None and isinstance(argument, fx.Node) else getattr(told, "shape", None)
    return length == (rank,) and _is_literal(argument, found.axis)


def sized_by(node: fx.Node) -> int | None:
    """The place of the argument that tells an operator the shape of what it makes; None where there is none."""
    index = TOLD.get(graphs.operator(node))
    return index if index is not None and index < len(node.args) and node.args[index] is not None else None


def _is_literal(argument: object, place: int) -> bool:
    """Whether the size at `place` of a vector of sizes is a constant."""
    if graphs.constant(argument) is not None:
        return True
    if not isinstance(argument, fx.Node) or graphs.operator(argument) != "Concat":
        return False
    index, inner = piece(argument, place)
    return _is_literal(argument.args[index], inner)


def piece(concat: fx.Node, place: int) -> tuple[int, int]:
    """Which part of a Concat of vectors holds what is at `place`, and where in it that is."""
    for index, part in enumerate(concat.args):
        shape = (graphs.shape(part) or ()) if isinstance(part, fx.Node) else ()
        size = shape[0] if shape else 1
        if place < size:
            return index, place
        place -= size
    raise ValueError(f"{concat} is shorter than it should be")
