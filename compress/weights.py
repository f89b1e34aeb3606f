"""Weights in integers: a scale per output channel, its range by rule, the bias at the accumulator's scale."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from convkit.compress import format as formats
from convkit.compress import graph as graphs
from convkit.compress import ops
from convkit.compress.format import Format
from convkit.compress.plan import LayerPlan

RANGES = ("max", "mse")
"""How a channel's range is found: its largest magnitude, or the fraction of it with the least squared error."""

_OUTPUT_SECOND = ("MatMul", "ConvTranspose")
"""Operators whose weight has its output channels on axis 1."""
_FRACTIONS = torch.linspace(0.6, 1.0, 17)
_BIAS_CODES = 2.0**30
"""Bias codes stay below this, so that accumulating onto one cannot overflow 32 bits."""
_DEAD_BIAS_CODES = 2.0**22
"""Bias codes of a channel whose weights are all zero: as fine as float32 has them."""


def channel_scale(weight: Tensor, number: Format, rule: str) -> Tensor:
    """Scale per channel (axis 0) of `weight`, float32 [channels], positive even for an all-zero channel."""
    rows = weight.detach().float().reshape(weight.shape[0], -1)
    peak = rows.abs().amax(1)
    scale, _ = number.parameters(-peak, peak)
    return scale if rule == "max" else _least_squares(rows, scale, number)


def _least_squares(rows: Tensor, scale: Tensor, number: Format) -> Tensor:
    zero = torch.zeros_like(scale)[:, None]
    errors = torch.stack([(number.fake(rows, (scale * f)[:, None], zero) - rows).square().sum(1) for f in _FRACTIONS])
    return scale * _FRACTIONS[errors.argmin(0)]


def rounded(weight: Tensor, number: Format, rule: str) -> Tensor:
    """`weight` on the grid of its channels (axis 0), still in float."""
    scale = channel_scale(weight, number, rule).reshape(-1, *[1] * (weight.ndim - 1))
    return number.fake(weight, scale, torch.zeros_like(scale))


def by_output(layer: nn.Module, weight: Tensor) -> Tensor:
    """`weight` with its output channels on axis 0 (and back): a transposed kernel is [in, out, ...]."""
    return weight.transpose(0, 1) if isinstance(layer, nn.modules.conv._ConvTransposeNd) else weight  # noqa: SLF001


def quantize_layer(
    graph: fx.GraphModule, node: fx.Node, layer: LayerPlan, bias_format: str | None, input_scale: Tensor
) -> None:
    """Replace the module that `node` calls by its operator on dequantized integer weights (and bias)."""
    module = graphs.module(node)
    assert isinstance(module, nn.modules.conv._ConvNd | nn.Linear)  # noqa: S101, SLF001 - the plan was checked
    assert layer.weight is not None  # noqa: S101
    number = formats.load(layer.weight)
    rows = by_output(module, module.weight.detach())
    scale = channel_scale(rows, number, layer.weight_range)
    bias = None if module.bias is None else module.bias.detach().float()
    if bias is not None and bias_format is not None:
        scale = _with_bias(scale, rows, bias, input_scale)
    across = (slice(None), *[None] * (rows.ndim - 1))
    codes = torch.round(rows / scale[across]).clamp(number.low, number.high).to(number.dtype())
    name, axis = str(node.target), 0
    if graphs.operator(node) in _OUTPUT_SECOND:
        codes, axis = codes.transpose(0, 1).contiguous(), 1
    weight = _dequantized(graph, node, f"{name}.weight", (codes, scale), axis)
    if bias is None or bias_format is None:
        bias_node = None if bias is None else graphs.store(graph, node, f"{name}.bias", bias)
    else:
        bias_scale = input_scale * scale
        bias_codes = torch.round(bias.double() / bias_scale.double()).to(torch.int32)
        bias_node = _dequantized(graph, node, f"{name}.bias", (bias_codes, bias_scale), 0)
    _replace(graph, node, module, weight, bias_node)


def _with_bias(scale: Tensor, weight: Tensor, bias: Tensor, input_scale: Tensor) -> Tensor:
    """`scale` raised where the bias would not fit the accumulator otherwise.

    A channel whose weights are all zero (pruned networks have them) still adds its bias: its scale is the bias's alone.
    """
    dead = weight.abs().flatten(1).amax(1) < scale / 2
    alone = bias.abs() / (input_scale * _DEAD_BIAS_CODES)
    fits = torch.minimum(alone, alone * input_scale) > torch.finfo(torch.float32).tiny
    raised = torch.maximum(scale, bias.abs() / (input_scale * _BIAS_CODES))
    return torch.where(dead, torch.where(fits, alone, scale), raised)


def _dequantized(graph: fx.GraphModule, before: fx.Node, name: str, held: tuple[Tensor, Tensor], axis: int) -> fx.Node:
    """DequantizeLinear over stored codes and their scale per channel along `axis`; zero point 0."""
    codes, scale = held
    stored = graphs.store(graph, before, f"{name}_quantized", codes)
    factor = graphs.store(graph, before, f"{name}_scale", scale)
    zero = graphs.store(graph, before, f"{name}_zero_point", torch.zeros_like(scale).to(codes.dtype))
    return graphs.call(zero, ops.function("DequantizeLinear"), (stored, factor, zero), name, axis=axis)


def put_biases_behind(graph: fx.GraphModule) -> None:
    """Take the bias of every quantized Conv out of it, into an Add that makes the tensor in its place."""
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and graphs.operator(node) == "Conv" and len(node.args) == len(("x", "w", "b")):
            _put_behind(graph, node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _put_behind(graph: fx.GraphModule, conv: fx.Node) -> None:
    values = _bias_values(conv.args[2])
    if values is None:
        return
    name, layer = graphs.value(conv), str(conv.meta["layer"])
    conv.args = conv.args[:2]
    across = values.reshape(-1, *[1] * len(conv.kwargs["kernel_shape"]))  # type: ignore[arg-type]
    bias = graphs.store(graph, conv, f"{layer}.bias", across)
    total = graphs.call(conv, ops.function("Add"), (conv, bias), name)
    total.meta["tensor"], conv.meta["value"] = conv.meta.get("tensor"), f"{name}_without_bias"
    conv.replace_all_uses_with(total, delete_user_cb=lambda user: user is not total)


def _bias_values(bias: object) -> Tensor | None:
    """What a bias, kept in float or in int32 codes, comes to; None where there is none."""
    held = graphs.constant(bias)
    if held is not None or not isinstance(bias, fx.Node):
        return held
    codes, scale = (graphs.constant(argument) for argument in bias.args[:2])
    assert codes is not None  # it was stored by `_dequantized`  # noqa: S101
    assert scale is not None  # noqa: S101
    return codes * scale


def _replace(graph: fx.GraphModule, node: fx.Node, module: nn.Module, weight: fx.Node, bias: fx.Node | None) -> None:
    source, name = node.args[0], graphs.value(node)
    if isinstance(module, nn.Linear):
        replacement = _linear(node, weight, bias)
    else:
        assert isinstance(module, nn.modules.conv._ConvNd)  # noqa: S101, SLF001
        function = ops.function(graphs.operator(node))
        attributes = _geometry(module)
        replacement = graphs.call(node, function, (source, weight, bias), name, str(node.target), **attributes)
    replacement.meta.update(tensor=node.meta.get("tensor"))
    node.replace_all_uses_with(replacement)
    graph.graph.erase_node(node)


def _geometry(module: nn.modules.conv._ConvNd) -> dict[str, Any]:
    """The layer's attributes as ONNX has them."""
    attributes = {
        "strides": list(module.stride),
        "pads": [int(p) for p in module.padding] * 2,
        "dilations": list(module.dilation),
        "group": module.groups,
        "kernel_shape": list(module.kernel_size),
    }
    if isinstance(module, nn.modules.conv._ConvTransposeNd):  # noqa: SLF001 - torch's only common class
        attributes["output_padding"] = list(module.output_padding)
    return attributes


def _linear(node: fx.Node, weight: fx.Node, bias: fx.Node | None) -> fx.Node:
    source, name, layer = node.args[0], graphs.value(node), str(node.target)
    if graphs.operator(node) == "Gemm":
        return graphs.call(node, ops.function("Gemm"), (source, weight, bias), name, layer, transB=1)
    product_name = name if bias is None else f"{name}_product"
    product = graphs.call(node, ops.function("MatMul"), (source, weight), product_name, layer)
    return product if bias is None else graphs.call(product, ops.function("Add"), (product, bias), name, layer)
