"""Float layers between quantized tensors, kept in float in engines that would quantize them by themselves.

ONNX Runtime gives a float weight between a DequantizeLinear and a QuantizeLinear one scale of its own making, and runs
the layer in integers (its WeightBiasQuantization): less exact than anything a plan would have chosen. It leaves alone
what reads an input with a scale for each channel, so that is what such a layer is given: the same scale, repeated.
"""

from __future__ import annotations

from torch import fx

from convkit.compress import graph as graphs
from convkit.compress import ops, weights
from convkit.compress.target import Target

_CHANNELS = 1
_KEPT = ("Relu", "Clip")
"""Activations through which the engine still sees the QuantizeLinear."""


def keep_float(graph: fx.GraphModule, target: Target) -> None:
    """Give every layer that `target` would quantize by itself a DequantizeLinear of its own, by channel."""
    for node in list(graphs.computes(graph)):
        if graphs.operator(node) in target.requantizes and _has_float_weight(node) and _is_quantized(node):
            source = node.args[0]
            if graphs.operator(source) == "DequantizeLinear":  # type: ignore[arg-type]
                _by_channel(graph, node, source)  # type: ignore[arg-type]


def _has_float_weight(node: fx.Node) -> bool:
    """Whether the engine sees a float constant: also what it makes of stored numbers by a cast and a product."""
    if graphs.module(node) is not None or graphs.constant(node.args[1]) is not None:
        return True
    made = node.args[1]
    return isinstance(made, fx.Node) and weights.FORMAT in made.meta and graphs.operator(made) != "DequantizeLinear"


def _is_quantized(node: fx.Node) -> bool:
    """Whether all that becomes of the node's result, or of its activation's, is its codes."""
    user = graphs.sole_user(node)
    while user is not None and graphs.operator(user) in _KEPT:
        user = graphs.sole_user(user)
    return user is not None and graphs.operator(user) == "QuantizeLinear"


def _by_channel(graph: fx.GraphModule, node: fx.Node, dequantize: fx.Node) -> None:
    codes, shape = dequantize.args[0], graphs.shape(_carried(dequantize))
    held = [graphs.constant(argument) for argument in dequantize.args[1:3]]
    if shape is None or any(tensor is None or tensor.numel() > 1 for tensor in held):
        return
    name = f"{graphs.value(dequantize)}_{graphs.key(node)}"
    repeated = [
        graphs.store(graph, dequantize, f"{name}_{part}", tensor.reshape(1).repeat(shape[_CHANNELS]))
        for part, tensor in zip(("scale", "zero_point"), held, strict=True)
        if tensor is not None
    ]
    own = graphs.call(
        dequantize, ops.function("DequantizeLinear"), (codes, *repeated), f"{name}_by_channel", axis=_CHANNELS
    )
    node.replace_input_with(dequantize, own)


def _carried(node: fx.Node) -> fx.Node:
    """The tensor whose codes pass through `node`: shapes are noted on those that were there before."""
    while "tensor" not in node.meta and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node
