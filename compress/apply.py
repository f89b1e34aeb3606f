"""Apply: the only place that changes a network, told everything by a Plan.

What comes out is a Model again, whose graph holds the QuantizeLinear and DequantizeLinear nodes and the integer
weights; running it is the simulation, writing it down is the export.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import fx

from convkit.compress import format as formats
from convkit.compress import graph as graphs
from convkit.compress import ops, parts, placement, sandwich, weights
from convkit.compress.errors import ConvkitError
from convkit.compress.method import Batches, Method, Samples
from convkit.compress.model import Model, clone, with_shapes
from convkit.compress.plan import LayerPlan, Plan
from convkit.compress.target import Target

if TYPE_CHECKING:
    from torch import Tensor


def prepare(model: Model, methods: tuple[str, ...], inputs: Samples | None = None) -> Model:
    """`model` after the methods that run before quantization, with shapes; the model given stays as it is.

    `inputs` are samples to trace shapes on; one of them is enough where the batch is free.
    """
    if inputs is not None and not _is_fixed(model):
        inputs = {name: tensor[:1] for name, tensor in inputs.items()}
    own = with_shapes(model.replace(graph=clone(model.graph)), inputs)
    placeholders = (node for node in own.graph.graph.nodes if node.op == "placeholder")
    for node, spec in zip(placeholders, model.inputs, strict=True):
        node.meta["input"] = spec
    changed = False
    for method in _methods(methods):
        if method.before:
            method.change(own.graph)
            changed = True
    return with_shapes(own, inputs) if changed else own


def _is_fixed(model: Model) -> bool:
    """Whether the batch is of one size, or there is none."""
    return any(isinstance(size, int) for size in model.inputs[0].shape[:1]) or not model.inputs[0].shape


def apply(model: Model, plan: Plan, target: Target, samples: Batches | None = None) -> Model:
    """`model` as `plan` says for `target`. `samples` are calibration inputs for the methods that need some.

    Raises ConvkitError where the plan is not this model's, names a layer there is none of, or lacks a range.
    """
    check_model(model, plan)
    return apply_prepared(prepare(model, plan.methods, samples[0] if samples else None), plan, target, samples)


def check_model(model: Model, plan: Plan) -> None:
    """Raise ConvkitError where `plan` was made for another model."""
    if plan.model != model.digest:
        raise ConvkitError(
            f"the plan is for model {plan.model[:12]}, not {model.digest[:12]}",
            hint="plan this model with `convkit quantize`",
        )


def apply_prepared(model: Model, plan: Plan, target: Target, samples: Batches | None = None) -> Model:
    """`apply` for a model that has been through `prepare` already, so that many plans can share that work."""
    check(model.graph, plan, target)
    graph = quantize(clone(model.graph), plan, target)
    for method in _methods(plan.methods):
        if not method.before:
            if samples is None:
                needy = [name for name in plan.methods if not _methods((name,))[0].before]
                raise ConvkitError(
                    f"the plan's {', '.join(needy)} needs the calibration data it was made with", hint="give --data"
                )
            graph = method.change(graph, model.graph, tuple(spec.name for spec in model.inputs), samples)
    return model.replace(graph=graph)


def _methods(names: tuple[str, ...]) -> list[Method]:
    return [parts.load("compress/methods", name) for name in names]


def check(graph: fx.GraphModule, plan: Plan, target: Target) -> None:
    """Raise ConvkitError where `plan` does not fit `graph`: an unknown layer or format, a missing range."""
    known = {graphs.key(node): node for node in graphs.computes(graph)}
    for name, layer in plan.layers.items():
        if name not in known:
            raise ConvkitError(
                f"the plan names layer {name!r}, which the model has not", hint="`convkit inspect` lists them"
            )
        if graphs.operator(known[name]) not in target.operators:
            raise ConvkitError(
                f"{target.name} runs no {graphs.operator(known[name])} ({name!r}) in {layer.activation}",
                hint="remove the layer's line to keep it in float",
            )
        _check_layer(name, layer)
    for placed in placement.quantized_tensors(graph, target, plan.layers).values():
        if graphs.value(placed.root) not in plan.ranges:
            raise ConvkitError(
                f"the plan has no range for tensor {graphs.value(placed.root)!r}",
                hint="let `convkit quantize --plan` calibrate it",
            )


def _check_layer(name: str, layer: LayerPlan) -> None:
    formats.load(layer.activation)
    if layer.weight is None:
        return
    if not formats.load(layer.weight).symmetric:
        raise ConvkitError(
            f"the plan stores the weight of {name!r} in {layer.weight}", hint="weights have no zero point"
        )
    if layer.weight_range not in weights.RANGES:
        hint = f"there is: {', '.join(weights.RANGES)}"
        raise ConvkitError(f"the plan has weight_range {layer.weight_range!r} for {name!r}", hint=hint)


@dataclass(frozen=True, slots=True)
class _Codes:
    """Scale, zero point and type between which a tensor's codes stand."""

    scale: Tensor
    zero: Tensor


def quantize(graph: fx.GraphModule, plan: Plan, target: Target) -> fx.GraphModule:
    """Put the Q/DQ pairs of `plan` into `graph` and its weights into integers; returns `graph`."""
    placed = placement.quantized_tensors(graph, target, plan.layers)
    codes = {node: _codes(p, plan) for node, p in placed.items()}
    inputs = _layer_inputs(graph, target, plan.layers, codes)
    for node, parameters in codes.items():
        _drop_saturated(node, parameters, target)
        rule = target.operators.get(graphs.operator(node))
        codes_only = rule is not None and rule.on_codes and graphs.key(node) in plan.layers
        _insert_pair(graph, node, parameters, on_codes=codes_only, shapes=target.shapes)
    for node in list(graphs.computes(graph)):
        layer = plan.layers.get(graphs.key(node))
        if layer is not None and layer.weight is not None and node.op == "call_module":
            rule = target.operators[graphs.operator(node)]
            weights.quantize_layer(graph, node, layer, rule.bias, inputs[node].scale)
    sandwich.keep_float(graph, target)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _codes(placed: placement.Placed, plan: Plan) -> _Codes:
    chosen, number = plan.ranges[graphs.value(placed.root)], formats.load(placed.format)
    scale, zero = number.parameters(torch.tensor(chosen.low), torch.tensor(chosen.high))
    return _Codes(scale, zero.to(number.dtype()))


def _layer_inputs(
    graph: fx.GraphModule, target: Target, layers: Mapping[str, LayerPlan], codes: Mapping[fx.Node, _Codes]
) -> dict[fx.Node, _Codes]:
    """How the codes that each layer reads are scaled: the bias is stored at that scale times the weight's."""
    low = [node for node in graphs.computes(graph) if graphs.key(node) in layers and node.op == "call_module"]
    return {node: codes[next(placement.data_inputs(node, target))] for node in low}


def _drop_saturated(node: fx.Node, codes: _Codes, target: Target) -> None:
    """Take out a Relu or Clip whose bounds the codes saturate at anyway: the codes stay the same, exactly."""
    producer = placement.fused_producer(node, target)
    if producer is None or (bounds := _bounds(node)) is None:
        return
    info = torch.iinfo(codes.zero.dtype)
    low, high = (torch.round(torch.tensor(b) / codes.scale) + codes.zero for b in bounds)
    if low <= info.min and high >= info.max:
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


def _moved_to_codes(node: fx.Node, zero: fx.Node) -> fx.Node:
    """`node` reading the codes that were dequantized for it, and so making codes; the code of 0 is `zero`."""
    source, rest = node.args[0], node.args[1:]
    assert isinstance(source, fx.Node)  # noqa: S101 - its input was given a pair before it
    if graphs.operator(node) == "Pad" and node.kwargs.get("mode", "constant") == "constant":
        rest = (rest[0], zero, *rest[2:])
    node.args = (source.args[0], *rest)
    return node


def _insert_pair(graph: fx.GraphModule, node: fx.Node, codes: _Codes, *, on_codes: bool, shapes: str) -> None:
    """QuantizeLinear and DequantizeLinear behind `node`, from where all who read it read now."""
    source, name = node, graphs.value(node)
    if graphs.operator(node) == "Identity" and isinstance(node.args[0], fx.Node):
        source = node.args[0]
        node.replace_all_uses_with(source)
        graph.graph.erase_node(node)
        source.meta["value"] = name
    readers = list(source.users)
    anchor = next(n for n in graph.graph.nodes if n.op != "placeholder")
    scale = graphs.store(graph, anchor, f"{name}_scale", codes.scale)
    zero = graphs.store(graph, anchor, f"{name}_zero_point", codes.zero)
    behind = zero if source.op == "placeholder" else source
    if on_codes:
        quantized = _moved_to_codes(source, zero)
    else:
        quantized = graphs.call(behind, ops.function("QuantizeLinear"), (source, scale, zero), f"{name}_quantized")
    dequantized = graphs.call(
        quantized, ops.function("DequantizeLinear"), (quantized, scale, zero), f"{name}_dequantized"
    )
    for reader in readers:
        of_codes = shapes == "codes" and not placement.reads_data(reader)
        reader.replace_input_with(source, quantized if of_codes else dequantized)
