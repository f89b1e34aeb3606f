"""Apply: the only place that changes a network, told everything by a Plan.

What comes out is a Model again, whose graph holds the QuantizeLinear and DequantizeLinear nodes and the integer
weights; running it is the simulation, writing it down is the export.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import fx

from convkit.compress import behind, factoring, fitting, ops, pairs, parts, placement, sandwich, weights
from convkit.compress import format as formats
from convkit.compress import graph as graphs
from convkit.compress.errors import ConvkitError
from convkit.compress.factoring import Chain
from convkit.compress.format import Integer
from convkit.compress.method import Batches, Method, Samples
from convkit.compress.model import Model, clone, with_shapes
from convkit.compress.plan import TAYLOR, LayerPlan, Plan
from convkit.compress.shrinking import shrink
from convkit.compress.target import Target

if TYPE_CHECKING:
    from torch import Tensor


def prepare(
    model: Model,
    methods: tuple[str, ...],
    samples: Batches | None = None,
    forms: Mapping[str, str] | None = None,
    widths: Mapping[str, int] | None = None,
    importance: str = TAYLOR,
) -> Model:
    """`model` after the methods that run before quantization, then with layers of these `widths`, whose channels are
    ranked by this `importance`, then convolutions in these `forms`, with shapes; the model given stays as it is.

    `samples` are inputs to trace shapes on, one of them where the batch is free, and for the methods that see data.
    Raises ConvkitError where such a method is given none.
    """
    sample = _sample(model, samples)
    own = with_shapes(model.replace(graph=clone(model.graph)), sample)
    placeholders = (node for node in own.graph.graph.nodes if node.op == "placeholder")
    for node, spec in zip(placeholders, model.inputs, strict=True):
        node.meta["input"] = spec
    before = [method for method in _methods(methods) if method.before]
    if samples is None and any(method.sees for method in before):
        raise _needs_data([name for name in methods if _methods((name,))[0].sees])
    for method in before:
        if method.sees:
            own = with_shapes(own, sample)
        method.change(own.graph, *((_inputs(model), samples) if method.sees else ()))
    own = with_shapes(own, sample) if before else own
    if samples is None and (widths or forms):
        raise _needs_data(["widths"] if widths else ["forms"])
    if widths and samples is not None:
        own = with_shapes(shrink.narrowed(own, widths, samples, importance), sample)
    if not forms or samples is None:
        return own
    found = factoring.chains(own.graph, _inputs(model), samples, {name: (text,) for name, text in forms.items()})
    return factored(own, {name: chain for name, known in found.items() for chain in known.values()}, samples)


def narrowed(model: Model, gone: frozenset[int], samples: Batches) -> Model:
    """The prepared `model` without these classes of its coupled channels, with shapes."""
    return with_shapes(shrink.without(model, gone, samples), _sample(model, samples))


def factored(model: Model, chains: Mapping[str, Chain], samples: Batches | None = None) -> Model:
    """The prepared `model` with convolutions as these chains, with shapes."""
    return with_shapes(model.replace(graph=factoring.put(clone(model.graph), chains)), _sample(model, samples))


def _sample(model: Model, samples: Batches | None) -> Samples | None:
    """One sample where the batch is free, else a batch."""
    if not samples or model.batch is not None:
        return samples[0] if samples else None
    return {name: tensor[:1] if tensor.ndim else tensor for name, tensor in samples[0].items()}


def _needs_data(names: list[str]) -> ConvkitError:
    return ConvkitError(
        f"the plan's {', '.join(names)} needs the calibration data it was made with", hint="give --data"
    )


def apply(model: Model, plan: Plan, target: Target, samples: Batches | None = None, probe: int | None = None) -> Model:
    """`model` as `plan` says for `target`. `samples` are calibration inputs for the methods that need some; those that
    run before quantization see the first `probe` batches, where it is given.

    Raises ConvkitError where the plan is not this model's, names a layer there is none of, or lacks a range.
    """
    fitting.check_model(model, plan)
    seen = None if samples is None else samples[:probe]
    return apply_prepared(
        prepare(model, plan.methods, seen, plan.forms, plan.widths, plan.importance), plan, target, samples
    )


def apply_prepared(model: Model, plan: Plan, target: Target, samples: Batches | None = None) -> Model:
    """`apply` for a model that has been through `prepare` already, so that many plans can share that work."""
    fitting.check(model.graph, plan, target)
    graph = quantize(clone(model.graph), plan, target)
    for method in _methods(plan.methods):
        if not method.before:
            if samples is None:
                raise _needs_data([name for name in plan.methods if not _methods((name,))[0].before])
            graph = method.change(graph, model.graph, _inputs(model), samples)
    if target.biases == "behind" and any(graphs.operator(node) == "Shape" for node in graphs.computes(graph)):
        behind.put(graph)
    return model.replace(graph=graph)


def _inputs(model: Model) -> tuple[str, ...]:
    return tuple(spec.name for spec in model.inputs)


def _methods(names: tuple[str, ...]) -> list[Method]:
    return [parts.load("compress/methods", name) for name in names]


Coded = dict[tuple[fx.Node, str], pairs.Codes]
"""How each rounded tensor is coded in each of its formats."""


def quantize(graph: fx.GraphModule, plan: Plan, target: Target) -> fx.GraphModule:
    """Put the pairs of `plan` into `graph` and its weights into their formats; returns `graph`."""
    placed = placement.quantized_tensors(graph, target, plan.layers)
    coded = {
        (node, name): _codes(p, name, plan, target) for node, p in placed.items() for name in (p.format, *p.others)
    }
    inputs = _layer_inputs(graph, target, plan.layers, placed, coded)
    for p in placed.values():
        _insert(graph, p, coded, plan, target)
    for node in list(graphs.computes(graph)):
        layer = plan.layers.get(graphs.key(node))
        if layer is not None and layer.weight is not None and node.op == "call_module":
            rule = target.operators[graphs.operator(node)]
            weights.quantize_layer(graph, node, layer, rule.bias, inputs.get(node))
    if not target.packed:
        weights.in_bytes(graph)
    sandwich.keep_float(graph, target)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _codes(placed: placement.Placed, name: str, plan: Plan, target: Target) -> pairs.Codes:
    number = formats.load(name)
    if not number.ranged:
        by_engine = name in target.formats and target.formats[name].whole
        return pairs.Codes.covering(number, 0.0, 0.0, by_engine=by_engine)
    chosen = plan.ranges[graphs.value(placed.root)]
    return pairs.Codes.covering(number, chosen.low, chosen.high)


def _layer_inputs(
    graph: fx.GraphModule,
    target: Target,
    layers: Mapping[str, LayerPlan],
    placed: Mapping[fx.Node, placement.Placed],
    coded: Coded,
) -> dict[fx.Node, Tensor]:
    """Scale of the 8-bit integers that a layer reads: its bias is stored at that scale times the weight's."""
    found = {}
    for node in graphs.computes(graph):
        layer = layers.get(graphs.key(node))
        if layer is None or node.op != "call_module" or formats.is_exact(layer.activation):
            continue
        source = next(placement.data_inputs(node, target))
        codes = coded[source, placed[source].read_by(layer)]
        if isinstance(codes.number, Integer) and codes.number.dtype().itemsize == 1:
            found[node] = codes.scale
    return found


def _insert(graph: fx.GraphModule, placed: placement.Placed, coded: Coded, plan: Plan, target: Target) -> None:
    """Round the tensor of `placed` in each of its formats, for those who read it in that one."""
    node, codes = placed.node, coded[placed.node, placed.format]
    rule = target.operators.get(graphs.operator(node))
    moves_codes = rule is not None and rule.on_codes and isinstance(codes.number, Integer)
    if placed.writes or not placed.others:
        _drop_saturated(node, codes, target)
    source, name = _source(graph, node)
    readers = list(source.users)
    wanted = {name: [r for r in readers if _reads(r, placed, plan) == name] for name in placed.others}
    if moves_codes and graphs.key(node) in plan.layers:
        pair = pairs.on_codes(graph, source, name, codes)
    else:
        pair = pairs.insert(graph, source, name, codes)
    pair.stored.meta[pairs.ROOT] = graphs.value(placed.root)
    shapes = [r for r in readers if target.shapes == "codes" and not placement.reads_data(r)]
    pairs.redirect(source, readers, pair, codes=shapes)
    for other, users in wanted.items():
        behind = pair.numbers if placed.writes else source
        more = pairs.insert(graph, behind, f"{name}_{other}", coded[node, other])
        more.stored.meta[pairs.ROOT] = graphs.value(placed.root)
        pairs.redirect(pair.numbers, users, more)


def _reads(reader: fx.Node, placed: placement.Placed, plan: Plan) -> str:
    """The format in which `reader` wants the tensor; a Pad stands for the convolution behind it."""
    user = graphs.sole_user(reader) if graphs.operator(reader) == "Pad" else reader
    layer = next((plan.layers[graphs.key(n)] for n in (reader, user) if n and graphs.key(n) in plan.layers), None)
    return placed.format if layer is None else placed.read_by(layer)


def _source(graph: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, str]:
    """What makes the tensor of `node`, and its name: a dropped activation leaves its own behind."""
    name, source = graphs.value(node), node
    if graphs.operator(node) == "Identity" and isinstance(node.args[0], fx.Node):
        source = node.args[0]
        node.replace_all_uses_with(source)
        graph.graph.erase_node(node)
        source.meta["value"] = name
    return source, name


def _drop_saturated(node: fx.Node, codes: pairs.Codes, target: Target) -> None:
    """Take out a Relu or Clip whose bounds the codes saturate at anyway: the codes stay the same, exactly."""
    producer = placement.fused_producer(node, target)
    bounds = _bounds(node)
    if producer is not None and bounds is not None and codes.saturate_at(*bounds):
        node.args = (producer,)
        node.target, node.kwargs = ops.function("Identity"), {}


def _bounds(node: fx.Node) -> tuple[float, float] | None:
    """What an activation clips its input to; None when it does more than that."""
    if graphs.operator(node) == "Relu":
        return 0.0, float("inf")
    if graphs.operator(node) != "Clip":
        return None
    limits = [float("-inf"), float("inf")]
    for index, argument in enumerate(node.args[1:3]):
        if argument is not None:
            limit = graphs.constant(argument)
            if limit is None:
                return None
            limits[index] = float(limit)
    return limits[0], limits[1]
