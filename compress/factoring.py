"""Convolutions of a network put into forms: what each reads, its chains, and the edit of the graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from convkit.compress import form as forms
from convkit.compress import graph as graphs
from convkit.compress import membership, patches
from convkit.compress.form import Chosen, Conv, Piece
from convkit.compress.lockstep import Lockstep
from convkit.compress.method import Batches, Samples

_ROUNDS = 20
"""Of descent towards what a layer should make; the first few gain nearly all there is."""
_POSITIONS = 16384
"""Output positions of a layer that its moment is taken of, over all samples; at least one of each sample."""


def plain(graph: fx.GraphModule) -> dict[str, Conv]:
    """Convolutions that forms may stand for, by name."""
    found = {graphs.key(node): graphs.module(node) for node in graphs.computes(graph)}
    return {name: layer for name, layer in found.items() if isinstance(layer, Conv) and forms.is_plain(layer)}


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """What stands for a convolution: smaller ones, and the bias of the last, [outputs] float64 if there is one."""

    pieces: tuple[Piece, ...]
    bias: Tensor | None = None


Chains = Mapping[str, Mapping[str, Chain]]
"""By convolution, and by form ("tucker2:8,12")."""


@dataclass(frozen=True, slots=True, eq=False)
class Reads:
    """Of what a group of a convolution's channels reads: the second moment [groups, k, k] and mean [groups, k]."""

    square: Tensor
    mean: Tensor

    @property
    def spread(self) -> Tensor:
        """The second moment about the mean [groups, k, k]."""
        return self.square - self.mean[..., None] * self.mean[..., None, :]


def chains(
    graph: fx.GraphModule, inputs: Sequence[str], samples: Batches, wanted: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Chain]]:
    """The chains of these convolutions that come nearest to them on what they read of `samples`.

    Raises ConvkitError for what is no convolution, or has no such form.
    """
    known = plain(graph)
    asked = {name: [Chosen.parse(text) for text in texts] for name, texts in wanted.items()}
    for name, one in ((name, one) for name, ones in asked.items() for one in ones):
        one.fitted(name, known)
    seen = reads(graph, inputs, samples, asked)
    return {name: {str(one): chain(one, known[name], seen[name]) for one in ones} for name, ones in asked.items()}


def chain(one: Chosen, conv: Conv, seen: Reads) -> Chain:
    """The chain of `conv` that errs least on what was `seen`; the bias takes off the mean of its error."""
    weight, bias = forms.grouped(conv), None if conv.bias is None else conv.bias.detach().double()
    pieces = one.part.factor(conv, weight, one.ranks)
    if one.ranks == one.part.full(conv):
        return Chain(tuple(pieces), bias)
    flat = weight.flatten(2)
    pieces = forms.refitted(pieces, flat, seen.square if bias is None else seen.spread, _ROUNDS)
    if bias is not None:
        off = flat - forms.merged(pieces).reshape(flat.shape)
        bias = bias + (off @ seen.mean[..., None]).flatten()
    return Chain(tuple(pieces), bias)


def _count(batch: Samples) -> int:
    return next((len(tensor) for tensor in batch.values() if tensor.ndim), 1)


def reads(graph: fx.GraphModule, inputs: Sequence[str], samples: Batches, names: Collection[str]) -> dict[str, Reads]:
    """What each of these convolutions reads of `samples`."""
    run, found = Lockstep(graph, inputs, samples), dict[str, Reads]()
    generator, count = torch.Generator().manual_seed(0), sum(map(_count, samples))
    most = -(-_POSITIONS // count)
    with torch.no_grad():
        for node in graph.graph.nodes:
            if len(found) == len(names) or node.op == "output":
                break
            is_asked = graphs.key(node) in names and node.op == "call_module"
            read = run.read(node) if is_asked else []
            made = run.advance(node)
            if is_asked:
                parts = [patches.of(node, x, y, most, generator).inputs for x, y in zip(read, made, strict=True)]
                rows = torch.cat(parts, 1)
                square = (rows.mT @ rows).double() / rows.shape[1]
                found[graphs.key(node)] = Reads(square, rows.double().mean(1))
    return found


def put(graph: fx.GraphModule, chains: Mapping[str, Chain]) -> fx.GraphModule:
    """`graph` with the convolutions that `chains` name as these: NAME.0, NAME.1, … where NAME was."""
    for node in list(graphs.computes(graph)):
        layer, chain = graphs.module(node), chains.get(graphs.key(node))
        if chain is not None and isinstance(layer, Conv):
            _put(graph, node, forms.layers(chain.pieces, layer, chain.bias))
    graph.recompile()
    return graph


def _put(graph: fx.GraphModule, node: fx.Node, layers: Sequence[Conv]) -> None:
    path, name = str(node.target), graphs.value(node)
    graph.set_submodule(path, nn.Sequential(*layers))
    source = node.all_input_nodes[0]
    for place in range(len(layers)):
        with graph.graph.inserting_before(node):
            made = graph.graph.call_module(f"{path}.{place}", (source,))
        last = place == len(layers) - 1
        made.meta.update(layer=f"{path}.{place}", value=name if last else f"{name}_{place}")
        membership.carry(node, made)
        source = made
    node.replace_all_uses_with(source)
    graph.graph.erase_node(node)
