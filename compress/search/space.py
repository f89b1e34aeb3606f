"""The search space: the Options open to every layer on a target, what each costs, and the Plan that a choice is."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, fx

from convkit.compress import format as formats
from convkit.compress import graph as graphs
from convkit.compress import placement, promotion, weights, widths
from convkit.compress.analysis import analyse
from convkit.compress.errors import ConvkitError
from convkit.compress.format import Integer
from convkit.compress.model import Model
from convkit.compress.option import FLOAT, Option
from convkit.compress.plan import LayerPlan, Plan
from convkit.compress.search.problem import Cost, Edge, Formats, Problem
from convkit.compress.target import Target

Options = Mapping[str, tuple[Option, ...]]
_NARROW = 8
"""Bits from which on a weight's range is its largest magnitude; below, some clipping is worth its error."""


def options(
    model: Model, target: Target, wanted: Sequence[str], floating: Option = FLOAT, keep: Collection[str] = ()
) -> Options:
    """What each layer that `target` runs in low precision may run in: `floating`, and what the formats `wanted` give.

    A layer without a weight runs in the target's activations or in float; in float alone where nothing is wanted.
    """
    placed, nodes = placement.place(model.graph, target, keep), _nodes(model)
    return {
        name: tuple(dict.fromkeys((floating, *_low(layer, nodes[name], target, wanted))))
        for name, layer in placed.items()
    }


def check_formats(wanted: Sequence[str], target: Target) -> None:
    """Raise ConvkitError for a name that is no format, or none that a weight can be searched in on `target`."""
    for name in wanted:
        if not is_searched(name, target):
            hint = "name formats of weights, such as int8 or int4; float is always open to every layer"
            raise ConvkitError(f"{name} is no format to search weights in on {target.name}", hint=hint)


def is_searched(name: str, target: Target) -> bool:
    """Whether a weight may be in the format: one with a scale, or a float that single layers run in on `target`."""
    number = formats.load(name)
    return number.symmetric and (number.ranged or target.runs_layers_in(name))


def _nodes(model: Model) -> dict[str, fx.Node]:
    return {graphs.key(node): node for node in graphs.computes(model.graph)}


def _low(layer: LayerPlan, node: fx.Node, target: Target, wanted: Sequence[str]) -> list[Option]:
    """Options of one layer beside float."""
    if layer.weight is None:
        return [Option(layer.activation, layer.activation)] if wanted else []
    # An integer weight meets the activations that the kernel reads, a float one those of its own format.
    asked = (Option(n, layer.activation if isinstance(formats.load(n), Integer) else n) for n in wanted)
    found = (promotion.promote(option, target).option for option in asked)
    return [option for option in found if promotion.has_kernel(node, option, target)]


def precision(text: str, target: Target) -> tuple[Option, str]:
    """The Option that `text`, such as "int4", "int4/uint8" or "fp6", asks for on `target`, as it runs there, and what
    there is to say about that.

    Integer weights alone meet the target's own activations, others those of their own format. The floats of fp6 are
    split into exponent and mantissa layer by layer. Raises ConvkitError for an unknown format, or one of weights that
    has a zero point.
    """
    weight, slash, activation = text.partition("/")
    if not weight or (slash and not activation):
        raise ConvkitError(f"precision {text!r} lacks a format", hint="give weights and activations: int4/uint8")
    bits = widths.bits(weight)
    if bits is not None:
        likely = Option(widths.splits(bits)[0], activation or FLOAT.activation)
        read = promotion.promote(likely, target)
        return Option(weight, read.option.activation), read.note.replace(likely.weight, weight)
    number = formats.load(weight)
    if not number.symmetric:
        raise ConvkitError(f"{weight} is no format of weights", hint="weights have no zero point: int4/uint8")
    own = target.activation if isinstance(number, Integer) else weight
    found = promotion.promote(Option(weight, activation or own), target)
    return found.option, found.note


def uniform(model: Model, target: Target, layers: Mapping[str, LayerPlan], option: Option) -> dict[str, LayerPlan]:
    """`layers` of `model` with all weights in the formats of `option`, less those that `target` has no kernel for.

    A layer without a weight runs in its activations where these are integers, else in float.
    """
    integers, nodes = isinstance(formats.load(option.activation), Integer), _nodes(model)
    return {
        name: layer_plan(layer, option if layer.weight is None else _split(nodes[name], option))
        for name, layer in layers.items()
        if (integers if layer.weight is None else promotion.has_kernel(nodes[name], option, target))
    }


def with_kernels(model: Model, target: Target, layers: Mapping[str, LayerPlan]) -> dict[str, LayerPlan]:
    """`layers` of `model` less those that `target` has no kernel for in their formats."""
    nodes = _nodes(model)

    def runs(name: str, layer: LayerPlan) -> bool:
        own = Option(layer.weight or layer.activation, layer.activation)
        return layer.weight is None or promotion.has_kernel(nodes[name], own, target)

    return {name: layer for name, layer in layers.items() if runs(name, layer)}


def _split(node: fx.Node, option: Option) -> Option:
    """`option` with the format of that many bits that suits the weight of `node`, where it leaves that open."""
    bits, module = widths.bits(option.weight), graphs.module(node)
    if bits is None or module is None:
        return option
    weight = module.weight
    assert isinstance(weight, Tensor)  # every layer has one  # noqa: S101
    return Option(widths.of_weight(weights.by_output(module, weight.detach()), bits), option.activation)


def layer_plan(layer: LayerPlan, option: Option) -> LayerPlan:
    """`layer` with the formats of `option`; a weight of few bits has its range by least squared error."""
    if layer.weight is None:
        return replace(layer, activation=option.activation)
    number = formats.load(option.weight)
    narrow = number.bits < _NARROW and option.weight != layer.weight
    rule = weights.rules(number)[1] if narrow else layer.weight_range
    return replace(layer, weight=option.weight, activation=option.activation, weight_range=rule)


@dataclass(frozen=True, slots=True)
class Times:
    """`seconds` of every layer by format of activations, and what `edges` between layers take beside."""

    seconds: Mapping[str, Mapping[str, float]]
    edges: Sequence[Edge] = ()


def problem(
    model: Model,
    target: Target,
    layers: Mapping[str, LayerPlan],
    found: Options,
    losses: Mapping[str, Mapping[Option, float]],
    times: Times,
    rest: Cost,
    floating: Option = FLOAT,
) -> Problem:
    """The Problem of choosing among `found` on `target`, with `losses` by option.

    `rest` is what the network takes beside its layers; layers that have no choice count as fixed too, and run in the
    format of `floating`, as all does that edges name beside layers.
    """
    macs = {layer.name: layer.macs for layer in analyse(model).layers}
    seconds, edges = times.seconds, times.edges
    bordered = _with_borders(times, found, floating.activation)
    followers = [name for name in found if layers[name].weight is None]
    nodes = {graphs.key(node): node for node in graphs.computes(model.graph)}
    costs = {
        name: {
            option: Cost(
                losses[name].get(option, 0.0),
                _seconds(bordered.get(name, {}), _kernel(layers[name], option, target)),
                _bytes(nodes[name], layers[name], option, target),
                bops(macs.get(name, 0), layers[name], option),
            )
            for option in chosen
        }
        for name, chosen in found.items()
    }
    fixed = Cost(
        seconds=rest.seconds
        + sum(_seconds(known, floating.activation) for name, known in seconds.items() if name not in found),
        bytes=rest.bytes + sum(_bytes(node, None, FLOAT, target) for node in _held_once(nodes, found)),
        bops=sum(bops(count, None, FLOAT) for name, count in macs.items() if name not in found),
    )
    chosen_among = [*_among(edges, found, floating.activation), *_following(edges, followers, found, floating)]
    return Problem(costs, tuple(chosen_among), fixed=fixed)


def _held_once(nodes: Mapping[str, fx.Node], found: Options) -> Iterator[fx.Node]:
    """A node for each layer without a choice; calls that have the same weight hold it once."""
    layers = [node for name, node in nodes.items() if name not in found and node.op == "call_module"]
    yield from {graphs.weight_id(node): node for node in layers}.values()


def _with_borders(times: Times, found: Options, floating: str) -> dict[str, dict[str, float]]:
    """The seconds of `times` with what layers pay for readers that have no choice and want `floating`."""
    seconds = {name: dict(known) for name, known in times.seconds.items()}
    for edge in times.edges:
        if edge.producer in found and not set(edge.consumers) <= set(found):
            own = seconds[edge.producer]
            own |= {before: taken + edge.change(before, floating) for before, taken in own.items()}
    return seconds


def _among(edges: Sequence[Edge], found: Options, floating: str) -> Iterator[Edge]:
    """`edges` between layers that have a choice. What others read in `floating` is paid for by its producer already."""
    for edge in edges:
        free = tuple(name for name in edge.consumers if name in found)
        if not free:
            continue
        if edge.producer not in found:
            yield replace(edge, producer="", consumers=free, given=floating)
        elif len(free) == len(edge.consumers):
            yield edge
        else:
            paid = {(option.activation, floating): 0.0 for option in found[edge.producer]}
            yield replace(edge, consumers=free, directed={**edge.directed, **paid})


def _following(edges: Sequence[Edge], followers: Sequence[str], found: Options, floating: Option) -> Iterator[Edge]:
    """What forbids that an operator without weights runs low on numbers in float: it is placed in float there."""
    for edge in edges:
        for name in [*filter(followers.__contains__, edge.consumers)] if edge.producer in found else ():
            low = [option.activation for option in found[name] if option != floating]
            yield Edge(edge.producer, (name,), directed={(floating.activation, number): math.inf for number in low})


def _kernel(layer: LayerPlan, option: Option, target: Target) -> str:
    """The format of activations by which times are known of the kernel that `option` runs in on `target`."""
    only_stored = bool(target.formats) and layer.weight is not None and not promotion.promote(option, target).saves_time
    return FLOAT.activation if only_stored else option.activation


def _seconds(times: Mapping[str, float], kernel: str) -> float:
    """Of a layer in that kernel; what is not known of one is what the slowest takes."""
    return times.get(kernel, max(times.values(), default=0.0))


def _bytes(node: fx.Node, layer: LayerPlan | None, option: Option, target: Target) -> int:
    """A float that is a setting of the whole network is none of its file."""
    if node.op != "call_module":
        return 0
    floats = layer is None or formats.is_exact(option.weight) or not is_searched(option.weight, target)
    chosen = None if floats or layer is None else layer_plan(layer, option)
    return promotion.layer_bytes(node, chosen, packed=target.packed)


def float_bops(macs: int) -> float:
    """Bit operations of that many multiply-accumulates in float32."""
    return bops(macs, None, FLOAT)


def bops(macs: int, layer: LayerPlan | None, option: Option) -> float:
    """Multiply-accumulates times bits of both operands (FLIQS, eq. 4: GBOPs = Σ GMACs · b_w · b_a)."""
    if layer is not None and layer.weight is None:
        return 0.0
    return float(macs * formats.load(option.weight).bits * formats.load(option.activation).bits)


def realised(model: Model, target: Target, plan: Plan, chosen: Formats, floating: Option = FLOAT) -> Plan:
    """`plan` with its layers in the Options `chosen`, as far as the target's rules for neighbours allow.

    An operator without weights follows what it reads; where that is in float it is in float too.
    """
    kept = {name for name, option in chosen.items() if option == floating}
    placed = placement.place(model.graph, target, kept | (set(_placeable(model, target)) - set(chosen)))
    layers = {name: layer_plan(plan.layers.get(name, layer), chosen[name]) for name, layer in placed.items()}
    return replace(plan, layers=layers)


def with_shared_ranges(model: Model, target: Target, plan: Plan) -> Plan:
    """`plan` with a range of its own for every tensor that it quantizes at the range of another."""
    placed = placement.quantized_tensors(model.graph, target, plan.layers).values()
    shared = {graphs.value(p.node): plan.ranges[graphs.value(p.root)] for p in placed}
    return replace(plan, ranges={**shared, **plan.ranges})


def _placeable(model: Model, target: Target) -> Mapping[str, LayerPlan]:
    return placement.place(model.graph, target)


def formats_of(plan: Plan, found: Options, floating: Option = FLOAT) -> dict[str, Option]:
    """The Option that every layer of `found` runs in under `plan`; of a chain, what its first convolution does."""

    def option(name: str) -> Option:
        form = plan.forms.get(name, "")
        layer = plan.layers.get(f"{name}.0" if form else name)
        own = floating if layer is None else Option(layer.weight or layer.activation, layer.activation)
        return replace(own, form=form)

    return {name: option(name) for name in found}
