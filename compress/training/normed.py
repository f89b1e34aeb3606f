"""Norms behind the convolutions of a network in float, while it is trained: a network whose norms are folded learns
slowly, for every step of one layer moves what all behind it read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from convkit.compress import graph as graphs
from convkit.compress.training.rounded import Norm
from convkit.compress.weights import by_output


@dataclass(frozen=True, slots=True)
class _Behind:
    """A norm, the node that calls it, and the convolution that it takes the bias of, with what that was before."""

    norm: Norm
    node: fx.Node
    layer: nn.Module
    weight: Tensor
    bias: Tensor | None


class Normed:
    """`graph` with norms behind its convolutions, from what these make of `samples` on, until `fold`. Norms that it has
    of its own learn with them."""

    def __init__(self, graph: fx.GraphModule, samples: Sequence[tuple[Tensor, ...]]) -> None:
        self._graph = graph
        self._behind = [_put(graph, node, f"_norm{at}") for at, node in enumerate(list(_bare(graph)))]
        graph.recompile()
        with torch.no_grad():
            for batch in samples:
                graph(*batch)
        for one in self._behind:
            one.norm.begin()

    def train(self, mode: bool = True) -> None:
        """Whether norms take the statistics of their batches."""
        for module in self._graph.modules():
            if isinstance(module, Norm | nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - torch's only common class
                module.train(mode)

    def fold(self, *, learnt: bool = True) -> None:
        """Convolutions that compute, alone, what they did with their norms; what they did before where nothing was
        `learnt`."""
        self.train(mode=False)
        with torch.no_grad():
            for one in self._behind:
                weight, bias = _weight(one.layer), one.bias
                if learnt:
                    factor, bias = one.norm.folded()
                    rows = by_output(one.layer, weight)
                    rows.mul_(factor.reshape(-1, *[1] * (rows.ndim - 1)))
                else:
                    weight.copy_(one.weight)
                one.layer.register_parameter("bias", None if bias is None else nn.Parameter(bias.clone()))
                one.node.replace_all_uses_with(one.node.all_input_nodes[0])
                self._graph.graph.erase_node(one.node)
                self._graph.delete_submodule(str(one.node.target))
        self._graph.recompile()


def _weight(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor)  # every convolution has one  # noqa: S101
    return layer.weight


def _bare(graph: fx.GraphModule) -> Iterator[fx.Node]:
    """Convolutions without a norm behind them, called once, whose outputs have one row each in their weight."""
    calls = [graphs.weight_id(node) for node in graph.graph.nodes if node.op == "call_module"]
    for node in graph.graph.nodes:
        layer = graphs.module(node)
        if not isinstance(layer, nn.modules.conv._ConvNd) or calls.count(graphs.weight_id(node)) > 1:  # noqa: SLF001
            continue
        grouped = isinstance(layer, nn.modules.conv._ConvTransposeNd) and layer.groups > 1  # noqa: SLF001
        if not grouped and not any(graphs.operator(user) == "BatchNormalization" for user in node.users):
            yield node


def _put(graph: fx.GraphModule, node: fx.Node, name: str) -> _Behind:
    layer = graphs.module(node)
    assert isinstance(layer, nn.modules.conv._ConvNd)  # noqa: S101, SLF001 - the caller looked
    bias = None if layer.bias is None else layer.bias.detach().clone()
    norm = Norm(torch.zeros(layer.out_channels) if bias is None else bias)
    layer.register_parameter("bias", None)
    graph.add_module(name, norm)
    with graph.graph.inserting_after(node):
        behind = graph.graph.call_module(name, (node,))
    behind.meta.update(node.meta)
    node.replace_all_uses_with(behind, delete_user_cb=lambda user: user is not behind)
    return _Behind(norm, behind, layer, layer.weight.detach().clone(), bias)
