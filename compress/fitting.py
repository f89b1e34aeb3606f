"""Whether a plan fits a network: it is this network's, and its layers, formats and ranges are there."""

from __future__ import annotations

import math

from torch import fx

from convkit.compress import format as formats
from convkit.compress import graph as graphs
from convkit.compress import placement, weights
from convkit.compress.errors import ConvkitError
from convkit.compress.format import Format
from convkit.compress.model import Model
from convkit.compress.plan import LayerPlan, Plan
from convkit.compress.target import Target


def check_model(model: Model, plan: Plan) -> None:
    """Raise ConvkitError where `plan` was made for another model."""
    if plan.model != model.digest:
        raise ConvkitError(
            f"the plan is for model {plan.model[:12]}, not {model.digest[:12]}",
            hint="plan this model with `convkit quantize`",
        )


def check(graph: fx.GraphModule, plan: Plan, target: Target) -> None:
    """Raise ConvkitError where `plan` does not fit `graph`: an unknown layer or format, a missing range."""
    check_layers(graph, plan, target)
    for placed in placement.quantized_tensors(graph, target, plan.layers).values():
        if placed.ranged and graphs.value(placed.root) not in plan.ranges:
            raise ConvkitError(
                f"the plan has no range for tensor {graphs.value(placed.root)!r}",
                hint="let `convkit quantize --plan` calibrate it",
            )


def check_layers(graph: fx.GraphModule, plan: Plan, target: Target) -> None:
    """Raise ConvkitError where a layer of `plan` is none of `graph`, or cannot run in its formats."""
    known = {graphs.key(node): node for node in graphs.computes(graph)}
    for name, layer in plan.layers.items():
        if name not in known:
            raise ConvkitError(
                f"the plan names layer {name!r}, which the model has not", hint="`convkit inspect` lists them"
            )
        rule = target.operators.get(graphs.operator(known[name]))
        if rule is None or (rule.formats and layer.activation not in rule.formats):
            raise ConvkitError(
                f"{target.name} runs no {graphs.operator(known[name])} ({name!r}) in {layer.activation}",
                hint=f"plan {rule.formats[0]}" if rule else "remove the layer's line to keep it in float",
            )
        _check_layer(known[name], layer)
        _check_type(name, layer.activation, target)
        if not formats.is_exact(layer.activation) and not any(True for _ in placement.data_inputs(known[name], target)):
            raise ConvkitError(
                f"layer {name!r} reads no float32 numbers that could be in {layer.activation}",
                hint="remove the layer's line",
            )


def _check_layer(node: fx.Node, layer: LayerPlan) -> None:
    name = graphs.key(node)
    formats.load(layer.activation)
    if layer.weight is None:
        return
    number = formats.load(layer.weight)
    if not number.symmetric:
        raise ConvkitError(
            f"the plan stores the weight of {name!r} in {layer.weight}", hint="weights have no zero point"
        )
    if layer.weight_range not in weights.RANGES:
        hint = f"there is: {', '.join(weights.RANGES)}"
        raise ConvkitError(f"the plan has weight_range {layer.weight_range!r} for {name!r}", hint=hint)
    size, module = weights.block_size(layer.granularity), graphs.module(node)
    if size is None:
        raise ConvkitError(
            f"the plan has granularity {layer.granularity!r} for {name!r}", hint="there is: tensor, channel, block:SIZE"
        )
    if size and module is not None:
        _check_blocks(name, number, size, weights.input_channels(module))


def _check_type(name: str, activation: str, target: Target) -> None:
    runs = target.formats.get(activation)
    if runs is not None and runs.missing:
        hint = f"take {runs.activation or target.activation}"
        raise ConvkitError(f"{target.name} has no {activation}, in which the plan has layer {name!r}", hint=hint)


def _check_blocks(name: str, number: Format, size: int, channels: int) -> None:
    if channels % size:
        raise ConvkitError(
            f"the plan has blocks of {size} input channels for {name!r}, which has {channels}",
            hint=f"blocks must divide them (OpenVINO takes no others): block:{math.gcd(size, channels)}, or channel",
        )
    if not weights.dequantizable(number):
        raise ConvkitError(f"the plan has blocks for {name!r}, whose format has no type in ONNX", hint="take channel")
