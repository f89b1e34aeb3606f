"""Chains of sums and products with constants, written as one product and one sum."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from convkit.compress import graph as graphs
from convkit.compress import ops

_ARITHMETIC = ("Add", "Sub", "Mul", "Div")
_STEPS = ("Floor", "Ceil", "Round", "Sign", "Mod", "Cast", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")
"""Operators whose output jumps: what comes before them keeps its order, for the last bit of it decides."""


def merge(graph: fx.GraphModule) -> None:
    """Every chain in `graph` as x a + b where that takes fewer operators; what they make moves by rounding alone."""
    seen: set[fx.Node] = set()
    for node in list(graphs.computes(graph)):
        if node not in seen:
            chain = _chain(node)
            seen.update(chain)
            if not any(graphs.operator(user) in _STEPS for user in (chain[-1].users if chain else ())):
                _rewrite(graph, chain)


def _chain(node: fx.Node) -> list[fx.Node]:
    """`node` and what follows it alone, as long as it is arithmetic of one tensor with constants."""
    found: list[fx.Node] = []
    following: fx.Node | None = node
    while following is not None and _operands(following) is not None:
        found.append(following)
        following = graphs.sole_user(following)
    return found


def _operands(node: fx.Node) -> tuple[fx.Node, Tensor] | None:
    """The tensor that `node` reads and its constant, where it makes one of the same shape."""
    if graphs.operator(node) not in _ARITHMETIC or not graphs.is_float(node):
        return None
    first, second = node.args
    if graphs.operator(node) in ("Add", "Mul") and graphs.constant(first) is not None:
        first, second = second, first
    constant = graphs.constant(second)
    if not isinstance(first, fx.Node) or constant is None:
        return None
    same = graphs.shape(first) is not None and graphs.shape(first) == graphs.shape(node)
    return (first, constant) if same and graphs.constant(first) is None else None


def _rewrite(graph: fx.GraphModule, chain: list[fx.Node]) -> None:
    """The last operators of `chain` as the product and the sum of it all, the others taken out."""
    factor, offset = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for node in chain:
        factor, offset = _after(graphs.operator(node), factor, offset, _known(node)[1].double())
    wanted = [("Mul", factor)] if bool((factor != 1).any()) else []
    wanted += [("Add", offset)] if bool((offset != 0).any()) else []
    finite = all(bool(constant.float().isfinite().all()) for _, constant in wanted)
    if not wanted or len(wanted) >= len(chain) or not finite:
        return
    source = _known(chain[0])[0]
    for node, (operator, constant) in zip(chain[-len(wanted) :], wanted, strict=True):
        stored = graphs.store(graph, node, f"{graphs.value(node)}_{operator.lower()}", constant.float())
        node.target, node.args, node.kwargs = ops.function(operator), (source, stored), {}
        source = node
    for node in reversed(chain[: -len(wanted)]):
        node.graph.erase_node(node)


def _known(node: fx.Node) -> tuple[fx.Node, Tensor]:
    found = _operands(node)
    assert found is not None  # every node of a chain has them  # noqa: S101
    return found


def _after(operator: str, factor: Tensor, offset: Tensor, constant: Tensor) -> tuple[Tensor, Tensor]:
    """Factor and offset once `operator` with `constant` has followed."""
    if operator == "Add":
        return factor, offset + constant
    if operator == "Sub":
        return factor, offset - constant
    if operator == "Mul":
        return factor * constant, offset * constant
    return factor / constant, offset / constant
