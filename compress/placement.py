"""Placement: which layers a target runs in low precision, and between which tensors its Q/DQ pairs then stand.

The rules are the target's data (`recipes/targets`). A tensor is quantized when a low-precision operator reads it, or
when the kernel of the one that makes it only exists with a quantized result.
"""

from __future__ import annotations

import operator as py_operator
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from torch import fx, nn

from convkit.compress import format as formats
from convkit.compress import graph as graphs
from convkit.compress import ops, pads
from convkit.compress.errors import ConvkitError, nearest
from convkit.compress.membership import reason_to_keep
from convkit.compress.plan import LayerPlan
from convkit.compress.target import Rule, Target

_NOT_DATA = ("Shape", "Size")
"""Operators that read a tensor's shape, not its numbers."""


def place(graph: fx.GraphModule, target: Target, keep: Collection[str] = ()) -> dict[str, LayerPlan]:
    """Formats for every layer that `target` can run in low precision, less the layers and operators in `keep` and what
    novel convolutions want in float.

    Layers with weights come first; an operator without weights follows where what it reads is quantized anyway, for
    alone it would pay for the conversion and gain nothing.
    """
    planned: dict[str, LayerPlan] = {}
    low: set[fx.Node] = set()
    merged = pads.mergeable(graph)
    for node in graphs.computes(graph):
        rule = target.operators.get(graphs.operator(node))
        if rule is None or graphs.key(node) in keep or graphs.operator(node) in keep or not _makes_float(node):
            continue
        if (
            node in merged
            or reason_to_keep(node)
            or (graphs.operator(node) == "Pad" and not pads.fills_with_zeros(node))
        ):
            continue
        if _is_fused(node, target, low) or not (_has_weight(node) if rule.weight else _follows(node, low, target)):
            continue
        own = next(iter(rule.formats), None)
        if own is None:
            low.add(node)
        activation, weight = own or rule.activation or target.activation, own or target.weight
        planned[graphs.key(node)] = LayerPlan(activation, weight if rule.weight else None)
    return {name: planned[name] for name in _worth_it(graph, target, planned)}


def check_keep(graph: fx.GraphModule, keep: Collection[str]) -> None:
    """Raise ConvkitError where `keep` names what is neither a layer of `graph` nor an operator."""
    own = {word for node in graphs.computes(graph) for word in (graphs.key(node), graphs.operator(node))}
    known = {*own, *ops.names()}
    for name in keep:
        if name not in known:
            hint = nearest(name, sorted(own), "`convkit inspect` lists the layers")
            raise ConvkitError(f"no layer or operator to keep in float is called {name!r}", hint=hint)


def _makes_float(node: fx.Node) -> bool:
    return all(graphs.is_float(result) for result in parts_of(node))


def parts_of(node: fx.Node) -> list[fx.Node]:
    """The tensors that `node` makes: itself, or each part it is split into."""
    parts = [user for user in node.users if user.target is py_operator.getitem]
    return parts or [node]


def _has_weight(node: fx.Node) -> bool:
    """Whether `node` is a layer whose weight can be stored with a scale per output channel."""
    layer = graphs.module(node)
    # The output channels of a grouped transposed kernel lie along no one axis.
    grouped = isinstance(layer, nn.modules.conv._ConvTransposeNd) and layer.groups > 1  # noqa: SLF001
    return layer is not None and not grouped


def _follows(node: fx.Node, low: set[fx.Node], target: Target) -> bool:
    """Whether everything that `node` computes with comes from a low-precision operator, or the image that it moves."""
    sources = list(data_inputs(node, target))
    if _rule(node, target).on_codes and sources and sources[0].op == "placeholder":
        return True
    return bool(sources) and all(_origin(source, target) in low for source in sources)


def _origin(node: fx.Node, target: Target) -> fx.Node:
    """The operator whose kernel makes the tensor `node`: itself, or the one it is fused into."""
    if node.target is py_operator.getitem and isinstance(node.args[0], fx.Node):
        return node.args[0]
    producer = fused_producer(node, target)
    return node if producer is None else producer


def _is_fused(node: fx.Node, target: Target, low: set[fx.Node]) -> bool:
    return fused_producer(node, target) in low


def fused_producer(node: fx.Node, target: Target) -> fx.Node | None:
    """The operator that runs the activation `node` inside its own kernel on `target`."""
    producer = node.args[0] if node.args else None
    if not isinstance(producer, fx.Node) or graphs.sole_user(producer) is not node:
        return None
    rule = target.operators.get(graphs.operator(producer))
    return producer if rule is not None and graphs.operator(node) in rule.fuses else None


def data_inputs(node: fx.Node, target: Target) -> Iterator[fx.Node]:
    """Float tensors `node` computes with; padding with zeros belongs to the convolution that reads it.

    What only moves codes has one, the rest of its inputs say where to.
    """
    arguments = list(node.args)[:1] if _rule(node, target).same_range else list(node.args)
    for argument in arguments:
        if isinstance(argument, fx.Node) and graphs.is_float(argument):
            yield padded_source(argument)


def padded_source(node: fx.Node) -> fx.Node:
    """What a Pad pads, when it vanishes into the convolution that alone reads it."""
    owner, source = node.graph.owning_module, node.args[0] if node.args else None
    if graphs.operator(node) != "Pad" or owner is None or not isinstance(source, fx.Node):
        return node
    return source if node in pads.mergeable(owner) else node


def _worth_it(graph: fx.GraphModule, target: Target, planned: Mapping[str, LayerPlan]) -> Iterator[str]:
    """Layers of `planned` without operators that only move codes towards readers in float."""
    low = {node for node in graphs.computes(graph) if graphs.key(node) in planned}
    for node in reversed(list(graphs.computes(graph))):
        if (
            node in low
            and _rule(node, target).same_range
            and not any(_reads_low(user, low) for result in parts_of(node) for user in result.users)
        ):
            low.discard(node)
    return (graphs.key(node) for node in graphs.computes(graph) if node in low)


def _reads_low(user: fx.Node, low: set[fx.Node]) -> bool:
    return user in low or (graphs.operator(user) == "Pad" and graphs.sole_user(user) in low)


def _rule(node: fx.Node, target: Target) -> Rule:
    return target.operators[graphs.operator(node)]


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor that is rounded: its node, its format, and the node whose range it shares (often itself).

    `others` are formats that readers of it want beside that: rounded from the numbers of `format` where the kernel that
    makes the tensor `writes` that one, from the tensor itself where it writes none.
    """

    node: fx.Node
    format: str
    root: fx.Node
    others: tuple[str, ...] = ()
    writes: bool = False

    @property
    def ranged(self) -> str | None:
        """The first of its formats that needs a range."""
        return next((name for name in (self.format, *self.others) if formats.load(name).ranged), None)

    def read_by(self, layer: LayerPlan) -> str:
        """The format in which `layer` reads it."""
        return layer.activation if layer.activation in self.others else self.format


@dataclass(slots=True)
class _Wishes:
    """Formats that a tensor's readers want, in execution order, its maker writes, and that one demands."""

    read: list[str] = field(default_factory=list)
    made: str | None = None
    demanded: str | None = None


def quantized_tensors(graph: fx.GraphModule, target: Target, layers: Mapping[str, LayerPlan]) -> dict[fx.Node, Placed]:
    """Tensors that are rounded when `layers` run in their formats, in execution order."""
    wishes: dict[fx.Node, _Wishes] = defaultdict(_Wishes)
    parent: dict[fx.Node, fx.Node] = {}
    for node in graphs.computes(graph):
        layer, rule = layers.get(graphs.key(node)), target.operators.get(graphs.operator(node))
        if layer is None or rule is None or formats.is_exact(layer.activation):
            continue
        sources = list(data_inputs(node, target))
        results = [kernel_output(result, target) for result in parts_of(node)]
        for tensor in sources:
            wishes[tensor].read.append(layer.activation)
            if rule.activation:  # who can read nothing else decides, whoever else reads or makes the tensor
                wishes[tensor].demanded = layer.activation
        for tensor in results if rule.output == "quantized" else ():
            wishes[tensor].made = layer.activation
        if rule.same_range:
            parent |= dict.fromkeys(results, sources[0])
    order = [node for node in graph.graph.nodes if node in wishes]
    return {node: _placed(node, wishes[node], _root(node, parent)) for node in order}


def _placed(node: fx.Node, wishes: _Wishes, root: fx.Node) -> Placed:
    made = wishes.made if wishes.made is not None and formats.load(wishes.made).ranged else None
    first = wishes.demanded or made or [*wishes.read, wishes.made][0]
    assert first is not None  # noqa: S101 - somebody wished for the tensor
    others = dict.fromkeys(name for name in wishes.read if name != first)
    if wishes.demanded:
        others = {name: None for name in others if not formats.load(name).ranged}
    return Placed(node, first, root, tuple(others), writes=made == first)


def kernel_output(node: fx.Node, target: Target) -> fx.Node:
    """The tensor that the kernel of `node` writes: its own, or that of the activation fused into it."""
    user = graphs.sole_user(node)
    return user if user is not None and fused_producer(user, target) is node else node


def _root(node: fx.Node, parent: Mapping[fx.Node, fx.Node]) -> fx.Node:
    while node in parent:
        node = parent[node]
    return node


def reads_data(user: fx.Node) -> bool:
    """Whether `user` reads the numbers of a tensor, not its shape alone."""
    return graphs.operator(user) not in _NOT_DATA
