"""Blocks: a network in parts, each between two places at which one tensor alone is alive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import fx


@dataclass(frozen=True, slots=True)
class Block:
    """`nodes` in execution order: they read `start` and each other, and nobody else reads any but the last."""

    start: fx.Node
    nodes: tuple[fx.Node, ...]

    @property
    def end(self) -> fx.Node:
        """The node that makes what leaves the block."""
        return self.nodes[-1]

    @property
    def layers(self) -> int:
        """Layers with weights in it."""
        return sum(node.op == "call_module" for node in self.nodes)


def of(graph: fx.GraphModule, most: int) -> list[Block]:
    """The blocks of `graph` that have layers, of up to `most` layers where its tensors allow so few.

    What has no weights belongs to the block before it.
    """
    found: list[Block] = []
    for part in _parts(graph):
        last = found[-1] if found else None
        joins = last is not None and last.end is part.start and (last.layers + part.layers <= most or not part.layers)
        if joins and last is not None:
            found[-1] = Block(last.start, (*last.nodes, *part.nodes))
        else:
            found.append(part)
    return [block for block in found if block.layers]


def varying(graph: fx.GraphModule) -> list[fx.Node]:
    """Nodes that hang on the inputs of `graph`, in execution order, the inputs among them, the end of the graph not."""
    found: dict[fx.Node, None] = {}
    for node in graph.graph.nodes:
        if node.op == "output":
            continue
        if node.op == "placeholder" or any(source in found for source in node.all_input_nodes):
            found[node] = None
    return list(found)


def between(nodes: Sequence[fx.Node], start: fx.Node, end: fx.Node) -> tuple[fx.Node, ...] | None:
    """Those of `nodes`, which vary, from behind `start` up to `end`; None where they read anything else that varies."""
    section = nodes[nodes.index(start) + 1 : nodes.index(end) + 1]
    known, every = {start, *section}, set(nodes)
    closed = all(source in known or source not in every for node in section for source in node.all_input_nodes)
    return tuple(section) if section and closed else None


def _parts(graph: fx.GraphModule) -> Iterator[Block]:
    """Blocks from each place with one live tensor to the next."""
    nodes = varying(graph)
    alive: set[fx.Node] = set()
    start: fx.Node | None = None
    passed: list[fx.Node] = []
    waiting = {node: len(node.users) for node in nodes}
    for node in nodes:
        for source in node.all_input_nodes:
            if source in waiting:
                waiting[source] -= 1
        alive = {one for one in (*alive, node) if waiting[one] > 0}
        passed.append(node)
        if alive != {node}:
            continue
        if start is not None:
            yield Block(start, tuple(passed))
        start, passed = node, []
