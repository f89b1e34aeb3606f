"""The Structure: what of a network takes time in an engine, its kernels and the tensors between them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import fx

from convkit.compress import graph as graphs
from convkit.compress import pads, placement
from convkit.compress.model import Model
from convkit.compress.target import Target

OUTSIDE = ""
"""Who makes the network's inputs and reads its outputs, always in float."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A float tensor, the layer whose kernel makes it and those that read it, by the names that plans have for them."""

    name: str
    producer: str
    readers: tuple[str, ...]
    elements: int


@dataclass(frozen=True, slots=True)
class Structure:
    """Layers in execution order, an activation that runs inside another layer's kernel not among them.

    `low`: the format each layer's activations have in low precision, for those that the target can run there.
    `owner`: name of a node or tensor -> the layer whose kernel makes it.
    """

    layers: tuple[str, ...]
    low: Mapping[str, str]
    tensors: tuple[Tensor, ...]
    owner: Mapping[str, str]

    def layer(self, names: Sequence[str], carried: Mapping[str, str]) -> str | None:
        """The layer that the first known of `names` belongs to; OUTSIDE for an input of the network.

        `carried`: codes and other forms of a tensor -> the tensor.
        """
        return next((self.owner[own] for own in (carried.get(n, n) for n in names) if own in self.owner), None)


def structure(model: Model, target: Target) -> Structure:
    """The Structure of a prepared `model` in the engine of `target`."""
    graph = model.graph
    merged = pads.mergeable(graph)
    kernels = [
        node for node in graphs.computes(graph) if node not in merged and placement.fused_producer(node, target) is None
    ]
    low = {name: layer.activation for name, layer in placement.place(graph, target).items()}
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    owner = {name: graphs.key(node) for node in kernels for name in _names(node, target)}
    return Structure(
        tuple(graphs.key(node) for node in kernels),
        {name: low[name] for name in map(graphs.key, kernels) if name in low},
        tuple(_tensors(inputs, kernels, target)),
        owner | {spec.name: OUTSIDE for spec in model.inputs},
    )


def _names(node: fx.Node, target: Target) -> Iterator[str]:
    yield graphs.key(node)
    for result in placement.parts_of(node):
        yield graphs.value(result)
        yield graphs.value(placement.kernel_output(result, target))


def _tensors(inputs: Sequence[fx.Node], kernels: Sequence[fx.Node], target: Target) -> Iterator[Tensor]:
    """Tensors that somebody reads the numbers of, once each."""
    readers: dict[fx.Node, list[str]] = {}
    for node in kernels:
        if placement.reads_data(node):
            for source in _sources(node):
                readers.setdefault(source, []).append(graphs.key(node))
    outputs = next(node for node in kernels[0].graph.nodes if node.op == "output")
    for source in outputs.all_input_nodes:
        readers.setdefault(source, []).append(OUTSIDE)
    made = {placement.kernel_output(part, target): node for node in kernels for part in placement.parts_of(node)}
    for node in (*inputs, *made):
        if node in readers and graphs.is_float(node):
            producer = graphs.key(made[node]) if node in made else OUTSIDE
            size = math.prod(graphs.shape(node) or ())
            yield Tensor(graphs.value(node), producer, tuple(dict.fromkeys(readers[node])), size)


def _sources(node: fx.Node) -> Iterator[fx.Node]:
    return (placement.padded_source(source) for source in node.all_input_nodes if graphs.is_float(source))
