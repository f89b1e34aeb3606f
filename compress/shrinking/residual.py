"""Residual blocks: parts of a network that only add to what passes them by, and may be left out."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from torch import fx

from convkit.compress import graph as graphs


@dataclass(frozen=True, slots=True)
class Block:
    """What stands between `source` and `total`, the sum of that and of what the block makes of it.

    `name` is the tensor that `total` makes; `layers` those inside, in order. `stage`: the blocks of one follow each
    other directly, and are left out from the last on.
    """

    name: str
    layers: tuple[str, ...]
    stage: int


def blocks(graph: fx.GraphModule) -> tuple[Block, ...]:
    """The residual blocks of `graph`, whose nodes have shapes, in order; none lies within another."""
    found, order = [], {node: at for at, node in enumerate(graph.graph.nodes)}
    for total in graphs.computes(graph):
        ends = _ends(total, order)
        if ends is not None:
            found.append((total, ends[0], _inside(ends[1], ends[0])))
    outer = [one for one in found if not any(one[0] in other[2] for other in found)]
    made, stage, last = [], -1, None
    for total, source, inside in outer:
        stage += source is not last and not _passes(source, last)
        names = tuple(graphs.key(node) for node in order if node in inside and node.op == "call_module")
        made.append(Block(graphs.value(total), names, stage))
        last = total
    return tuple(made)


def _ends(total: fx.Node, order: dict[fx.Node, int]) -> tuple[fx.Node, fx.Node] | None:
    """What passes by, and what is added to it, where `total` is the sum of both and they are of one shape."""
    if graphs.operator(total) != "Add" or len(total.all_input_nodes) != 2:  # noqa: PLR2004 - a sum of two
        return None
    one, other = total.all_input_nodes
    source, branch = (one, other) if order[one] < order[other] else (other, one)
    if graphs.shape(source) != graphs.shape(branch) or source.op in ("get_attr", "placeholder"):
        return None
    inside = _inside(branch, source)
    return (source, branch) if inside and _is_closed(inside, source, total) else None


def _inside(branch: fx.Node, source: fx.Node) -> set[fx.Node]:
    """What `branch` is computed by from `source` on; constants not counted."""
    found: set[fx.Node] = set()
    left = [branch]
    while left:
        node = left.pop()
        if node is source or node in found or node.op == "get_attr":
            continue
        found.add(node)
        left += node.all_input_nodes
    return found


def _is_closed(inside: Collection[fx.Node], source: fx.Node, total: fx.Node) -> bool:
    """Whether it reads nothing but `source`, and nobody but `total` reads of it; with a layer that it is worth."""
    reads = {read for node in inside for read in node.all_input_nodes if read.op != "get_attr"} - set(inside)
    users = {user for node in inside for user in node.users} - set(inside)
    return reads == {source} and users <= {total} and any(node.op == "call_module" for node in inside)


def _passes(source: fx.Node, last: fx.Node | None) -> bool:
    """Whether `source` is `last` but for what has no weights: an activation between two blocks."""
    while source is not last:
        reads = [one for one in source.all_input_nodes if one.op != "get_attr"]
        if source.op != "call_function" or len(reads) != 1:
            return False
        (source,) = reads
    return True


def stages(found: Collection[Block]) -> Iterator[tuple[Block, ...]]:
    """Blocks that follow each other."""
    for stage in dict.fromkeys(block.stage for block in found):
        yield tuple(block for block in found if block.stage == stage)


def leave_out(graph: fx.GraphModule, names: Collection[str]) -> fx.GraphModule:
    """`graph`, edited in place, without the blocks of these names: what passes them by goes on."""
    order = {node: at for at, node in enumerate(graph.graph.nodes)}
    for total in list(graphs.computes(graph)):
        if graphs.value(total) not in names:
            continue
        ends = _ends(total, order)
        assert ends is not None  # `blocks` found it  # noqa: S101
        total.replace_all_uses_with(ends[0])
        graph.graph.erase_node(total)
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph
