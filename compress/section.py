"""A Section: a block of the float network and the nodes that compute it in the quantized one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from convkit.compress import blocks, patches, stored, weights
from convkit.compress import graph as graphs
from convkit.compress.blocks import Block
from convkit.compress.lockstep import constant


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a section: its node in the float network, and what the quantized one holds of it."""

    exact: fx.Node
    held: stored.Weight

    @property
    def channels(self) -> int:
        """The axis of its output channels in what it makes."""
        return -1 if graphs.operator(self.exact) == "MatMul" else 1

    def soft(self) -> dict[str, Tensor]:
        """Parameters of the float layer, with the values that the quantized one has."""
        module = graphs.module(self.exact)
        assert module is not None  # noqa: S101 - a call_module node
        assert isinstance(module.weight, Tensor)  # noqa: S101 - every layer has one
        first = weights.by_output(module, module.weight)
        rows = patches.rows(self.held.node, constant(self.held.numbers))
        found = {"weight": weights.by_output(module, rows.reshape(first.shape))}
        numbers = stored.bias(self.held.node)
        return found if numbers is None else {**found, "bias": constant(numbers).flatten()}

    def rows(self, gradient: Tensor) -> Tensor:
        """What lies as the float layer's weight, as [groups, m, k] in float64."""
        module = graphs.module(self.exact)
        assert module is not None  # noqa: S101 - a call_module node
        rows = weights.by_output(module, gradient).flatten(1).double()
        groups = patches.groups(self.held.node)
        return rows.reshape(groups, len(rows) // groups, -1)


@dataclass(frozen=True, slots=True)
class Section:
    """`nodes` compute `block` in the quantized network, from the tensor of `start` to that of the last of them."""

    block: Block
    start: fx.Node
    nodes: tuple[fx.Node, ...]
    layers: tuple[Layer, ...]

    @property
    def end(self) -> fx.Node:
        """The quantized network's node that makes what leaves the block."""
        return self.nodes[-1]

    def rounded(self, x: Tensor) -> Tensor:
        """What the quantized block makes of `x`."""
        with torch.no_grad():
            return _run(self.nodes, {self.start: x}, {})

    def soft(self, x: Tensor, shifts: Mapping[fx.Node, Tensor], held: Mapping[str, Mapping[str, Tensor]]) -> Tensor:
        """What the float block makes of `x` with the parameters `held` by layer, outputs moved by `shifts`."""
        changed = {}
        for layer in self.layers:
            changed[layer.exact] = held[graphs.key(layer.exact)], shifts.get(layer.exact)
        return _run(self.block.nodes, {self.block.start: x}, changed)


def sections(graph: fx.GraphModule, exact: fx.GraphModule, most: int) -> list[Section]:
    """The blocks of `exact`, of up to `most` layers, that `graph` computes as such, in execution order."""
    varying = blocks.varying(graph)
    by_name = {graphs.value(node): node for node in varying}
    found = []
    for block in blocks.of(exact, most):
        start, end = (by_name.get(graphs.value(node)) for node in (block.start, block.end))
        nodes = None if start is None or end is None else blocks.between(varying, start, end)
        if start is not None and nodes is not None and _keeps_samples(block):
            layers = tuple(_layers(block, nodes))
            found.append(Section(block, start, nodes, layers))
    return [section for section in found if section.layers]


def _keeps_samples(block: Block) -> bool:
    """Whether what leaves it is of as many samples as what enters: frames of a film may be folded into them."""
    first, last = (graphs.shape(node) for node in (block.start, block.end))
    return bool(first and last) and first[:1] == last[:1]  # type: ignore[index]


def _layers(block: Block, nodes: Sequence[fx.Node]) -> list[Layer]:
    exact = {graphs.key(node): node for node in block.nodes if node.op == "call_module"}
    held = [(node, stored.weight(node)) for node in nodes]
    return [Layer(exact[node.meta["layer"]], one) for node, one in held if one is not None]


def _run(
    nodes: Sequence[fx.Node],
    values: dict[fx.Node, Any],
    changed: Mapping[fx.Node, tuple[Mapping[str, Tensor], Tensor | None]],
) -> Tensor:
    """The last of `nodes` from `values`; layers in `changed` have other parameters and a moved output."""

    def value(node: fx.Node) -> Any:  # noqa: ANN401 - tensors, or tuples of them
        return values[node] if node in values else constant(node)

    for node in nodes:
        arguments, module = fx.map_arg(node.args, value), graphs.module(node)
        if module is None:
            values[node] = node.target(*arguments, **node.kwargs)  # type: ignore[operator]
        elif node in changed:
            parameters, shift = changed[node]
            made = torch.func.functional_call(module, dict(parameters), arguments)
            values[node] = made if shift is None else made + shift
        else:
            values[node] = module(*arguments)
    result: Tensor = values[nodes[-1]]
    return result
