"""Channels that stand or fall together: which of them may be taken out of a network, and why the others may not.

Every channel of every tensor has a number. A layer makes new ones; what adds two tensors makes one class of their
channels, what moves channels about (Concat, Reshape, a shuffle) is run on the numbers themselves. What is left at the
end are classes whose channels go together, and families of classes that the same layers make.
"""

from __future__ import annotations

import operator as py_operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from convkit.compress import graph as graphs
from convkit.compress.shrinking import rules
from convkit.compress.shrinking.classes import Along, Classes
from convkit.compress.shrinking.rules import Known

Layer = nn.modules.conv._ConvNd | nn.Linear  # noqa: SLF001 - torch's only common class of 1-D to 3-D


def is_dense(node: fx.Node) -> bool:
    """Whether `node` is a layer whose every output reads all its inputs: these may go without those."""
    layer = graphs.module(node)
    return isinstance(layer, nn.Linear) or (isinstance(layer, Layer) and bool(layer.groups == 1))


@dataclass(frozen=True, slots=True)
class Family:
    """Classes of channels that the same layers make: what has one width.

    `name` is that of the first of these layers; `made_by` all of them, `read_by` those that only read the channels.
    `channels`: how many each class has, of the first layer's where that has them all.
    """

    name: str
    made_by: tuple[str, ...]
    read_by: tuple[str, ...]
    classes: tuple[int, ...]
    channels: tuple[int, ...]

    @property
    def width(self) -> int:
        """Channels of the first layer."""
        return sum(self.channels)


@dataclass(frozen=True, slots=True, eq=False)
class Coupling:
    """Of a network: its `families` that may shrink, and of those that may not, the reason by the first layer's name.

    `known` says where tensors, layers and constants have their channels, `reads` where a layer's input has them;
    numbers are those of classes.
    """

    families: tuple[Family, ...]
    held: Mapping[str, str]
    known: Mapping[fx.Node, Along | tuple[Along | None, ...]]
    reads: Mapping[fx.Node, Along]


def coupling(graph: fx.GraphModule) -> Coupling:
    """How the channels of `graph`, whose nodes have shapes, hang together."""
    classes, known = Classes(), Known()
    reads: dict[fx.Node, Along] = {}
    by_weight: dict[int, tuple[Along | None, Along | None]] = {}
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            known[node] = _input(node, classes)
        elif node.op == "output":
            for result in node.all_input_nodes:
                classes.hold(_labels(known.get(result)), "it is an output of the network")
        elif node.op == "call_module":
            _layer(node, known, reads, classes, by_weight)
        elif node.target is py_operator.getitem:
            many = known[node.args[0]]
            known[node] = many[node.args[1]] if isinstance(many, tuple) else None
        elif node.op == "call_function":
            known[node] = rules.made(node, known, classes)
    settled = {node: _settled(along, classes) for node, along in known.items() if along is not None}
    read = {node: Along(along.axis, classes.roots(along.labels)) for node, along in reads.items()}
    families, held = _families(graph, settled, read, classes)
    return Coupling(families, held, settled, read)


def of_clone(coupled: Coupling, graph: fx.GraphModule, clone: fx.GraphModule) -> Coupling:
    """The coupling of a `clone` of `graph`, whose own is `coupled`: nodes are in the same order."""
    same = dict(zip(graph.graph.nodes, clone.graph.nodes, strict=True))
    known = {same[node]: along for node, along in coupled.known.items()}
    return Coupling(coupled.families, coupled.held, known, {same[node]: one for node, one in coupled.reads.items()})


def _input(node: fx.Node, classes: Classes) -> Along | None:
    shape = graphs.shape(node) or ()
    is_read = len(shape) > 1 and graphs.is_float(node)  # integers pick among others
    return Along(1, classes.held(shape[1], "it is an input of the network")) if is_read else None


def _labels(along: Along | tuple[Along | None, ...] | None) -> Tensor:
    if isinstance(along, tuple):
        return torch.cat([_labels(one) for one in along])
    return torch.zeros(0, dtype=torch.int64) if along is None else along.labels


def _settled(along: Along | tuple[Along | None, ...], classes: Classes) -> Along | tuple[Along | None, ...]:
    if isinstance(along, tuple):
        return tuple(None if one is None else Along(one.axis, classes.roots(one.labels)) for one in along)
    return Along(along.axis, classes.roots(along.labels))


def _layer(
    node: fx.Node,
    known: Known,
    reads: dict[fx.Node, Along],
    classes: Classes,
    by_weight: dict[int, tuple[Along | None, Along | None]],
) -> None:
    """What a layer reads and makes; calls that share a weight have the same channels."""
    layer, source = graphs.module(node), node.args[0]
    assert isinstance(source, fx.Node)  # noqa: S101 - a layer reads one tensor
    read = known.get(source)
    assert not isinstance(read, tuple)  # noqa: S101
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001
        taken, made = _at(read, 1, node, classes), read
    elif isinstance(layer, nn.Linear):
        axis = len(graphs.shape(node) or ()) - 1
        taken, made = _at(read, axis, node, classes), Along(axis, classes.new(layer.out_features))
    elif isinstance(layer, nn.modules.conv._ConvNd):  # noqa: SLF001
        taken, made = _at(read, 1, node, classes), Along(1, classes.new(layer.out_channels))
        _group(taken, made, layer.groups, node, classes)
    else:
        taken, made = None, None
        classes.hold(_labels(read), f"{node.target} reads it, a {type(layer).__name__}")
    before = by_weight.setdefault(graphs.weight_id(node), (taken, made))
    _same(before[0], taken, node, classes)
    _same(before[1], made, node, classes)
    known[node] = made
    if taken is not None:
        reads[node] = taken


def _at(along: Along | None, axis: int, node: fx.Node, classes: Classes) -> Along | None:
    """The channels that a layer reads along `axis`; others must stay as they are."""
    if along is None or along.axis == axis:
        return along
    classes.hold(along.labels, f"{node.target} reads it along another axis")
    return None


def _group(taken: Along | None, made: Along, groups: int, node: fx.Node, classes: Classes) -> None:
    """A group of a convolution goes whole, with what it reads and makes."""
    if groups == 1:
        return
    if taken is None:
        classes.hold(made.labels, f"{node.target} has groups of what is no channel")
        return
    for read, own in zip(taken.labels.chunk(groups), made.labels.chunk(groups), strict=True):
        classes.unite_all(torch.cat([read, own]))


def _same(one: Along | None, other: Along | None, node: fx.Node, classes: Classes) -> None:
    if one is not None and other is not None:
        classes.unite(one.labels, other.labels)
    elif one is not other:
        held = other if one is None else one
        classes.hold(_labels(held), f"{node.target} is called on other channels as well")


def _families(
    graph: fx.GraphModule, known: Mapping[fx.Node, object], reads: Mapping[fx.Node, Along], classes: Classes
) -> tuple[tuple[Family, ...], dict[str, str]]:
    makers = dict(_makers(graph, known))
    owner: dict[int, fx.Node] = {}
    joined = _Joined()
    for node, along in makers.items():
        for label in torch.unique(along.labels).tolist():
            joined.unite(owner.setdefault(label, node), node)
    members: dict[fx.Node, list[fx.Node]] = {}
    for node in makers:
        members.setdefault(joined.root(node), []).append(node)
    families, held = [], {}
    for nodes in members.values():
        roots = list(dict.fromkeys(label for node in nodes for label in makers[node].labels.tolist()))
        reason = next(filter(None, (classes.reason(root) for root in roots)), "")
        free = [root for root in roots if not classes.reason(root)]
        if reason:
            held[graphs.key(nodes[0])] = reason
        if len(free) > 1 or (free and reason):
            families.append(_family(nodes, makers, reads, free))
    return tuple(families), held


def _makers(graph: fx.GraphModule, known: Mapping[fx.Node, object]) -> Iterator[tuple[fx.Node, Along]]:
    """Layers that have weights for channels of their own, in order."""
    for node in graph.graph.nodes:
        along = known.get(node)
        if node.op == "call_module" and isinstance(graphs.module(node), Layer) and isinstance(along, Along):
            yield node, along


def _family(
    nodes: list[fx.Node], makers: Mapping[fx.Node, Along], reads: Mapping[fx.Node, Along], free: list[int]
) -> Family:
    first = makers[nodes[0]].labels
    whole = nodes[:1] if bool(torch.isin(torch.tensor(free), first).all()) else nodes
    counts = {root: max(int((makers[node].labels == root).sum()) for node in whole) for root in free}
    mine = torch.tensor(free)
    readers = [
        graphs.key(node)
        for node, along in reads.items()
        if node not in nodes and isinstance(graphs.module(node), Layer) and bool(torch.isin(along.labels, mine).any())
    ]
    made_by = dict.fromkeys(graphs.key(node) for node in nodes)
    read_by = dict.fromkeys(readers)
    return Family(graphs.key(nodes[0]), tuple(made_by), tuple(read_by), tuple(free), tuple(counts[r] for r in free))


class _Joined:
    """Layers that make channels of one family."""

    def __init__(self) -> None:
        self._parent: dict[fx.Node, fx.Node] = {}

    def root(self, node: fx.Node) -> fx.Node:
        while self._parent.setdefault(node, node) is not node:
            node = self._parent[node]
        return node

    def unite(self, one: fx.Node, other: fx.Node) -> None:
        self._parent[self.root(other)] = self.root(one)
