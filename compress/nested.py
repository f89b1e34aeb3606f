"""Graphs inside of nodes of an ONNX file: the branches of an If, the bodies of a Loop or a Scan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Those of the node itself."""
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def nodes(given: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes that are given, each before those inside of it."""
    for node in given:
        yield node
        for body in bodies(node):
            yield from nodes(body.node)


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph, and those inside of it."""
    yield graph
    for node in nodes(graph.node):
        yield from bodies(node)


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, with every use of a tensor inside of it."""
    yield from node.input
    for body in bodies(node):
        yield from uses(body)


def uses(graph: onnx.GraphProto) -> Iterator[str]:
    """Every use of a tensor in a graph: as what it gives, and by its nodes."""
    yield from (value.name for value in graph.output)
    for node in graph.node:
        yield from reads(node)
