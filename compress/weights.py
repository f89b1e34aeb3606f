"""Weights in a number format: scales per tensor, channel or block, a range by rule, the bias as the kernel adds it."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, fx, nn

from convkit.compress import format as formats
from convkit.compress import graph as graphs
from convkit.compress import membership, ops
from convkit.compress.format import Format, Integer
from convkit.compress.plan import LayerPlan

RANGES = ("max", "mse", "gain")
"""How a range is found: the largest magnitude, the fraction of it with the least squared error, or that with the least
where an error along the row itself counts `_ALONG` times more."""
_ALONG = {"mse": 0.0, "gain": 8.0}
"""Clipping makes every row of every layer smaller, so such errors have one sign and multiply from layer to layer, while
the others average out: EfficientNet-Lite0 with weights in four bits by "mse" puts out half of what it should."""
_FEW_BITS = 6

FORMAT = "format"
"""Mark in the meta of the nodes that give a layer's weight in codes and in numbers: the name of the format."""
_BLOCK = re.compile(r"block:([1-9]\d*)")
_OUTPUT_SECOND = ("MatMul", "ConvTranspose")
"""Operators whose weight has its output channels on axis 1."""
_BIAS_CODES = 2.0**30
"""Bias codes stay below this, so that accumulating onto one cannot overflow 32 bits."""
_FEW, _STRIDE = 17, 5
"""Fractions that are all tried; of more, every fifth is, and then the neighbours of the best."""
_TINY = torch.finfo(torch.float32).tiny
_FLOAT = 1
"""float32 as ONNX numbers it."""
_DEAD_BIAS_CODES = 2.0**22
"""Bias codes of a channel whose weights are all zero: as fine as float32 has them."""


def block_size(granularity: str) -> int | None:
    """Input channels that share a scale by `granularity`; 0 where all of them do, None where it is none."""
    if granularity in ("tensor", "channel"):
        return 0
    match = _BLOCK.fullmatch(granularity)
    return None if match is None else int(match[1])


def channel_scale(weight: Tensor, number: Format, rule: str) -> Tensor:
    """Scale per channel (axis 0) of `weight`, float32 [channels], positive even for an all-zero channel."""
    rows = weight.detach().float().reshape(weight.shape[0], -1)
    peak = rows.abs().amax(1)
    scale, _ = number.parameters(-peak, peak)
    return scale if rule == "max" else _least_squares(rows, scale, number, _ALONG[rule])


def rules(number: Format) -> tuple[str, str]:
    """The rules that suit `number`: few codes need much clipping, which must not make every row shorter."""
    return ("max", "gain" if number.bits <= _FEW_BITS else "mse")


def _least_squares(rows: Tensor, scale: Tensor, number: Format, along: float) -> Tensor:
    """`scale` times the fraction with the least squared error, row by row: a coarse search, then what lies around."""
    fractions = number.fractions()
    last, stride = len(fractions) - 1, 1 if len(fractions) <= _FEW else _STRIDE
    best = torch.full_like(scale, last, dtype=torch.int64)
    least = torch.full_like(scale, torch.inf)
    for index in range(last, -1, -stride):
        best, least = _better(rows, scale, number, (best, least), torch.full_like(best, index), along)
    centre = best
    for offset in (step for step in range(1 - stride, stride) if step):
        best, least = _better(rows, scale, number, (best, least), (centre + offset).clamp(0, last), along)
    return scale * fractions[best]


def _better(
    rows: Tensor, scale: Tensor, number: Format, known: tuple[Tensor, Tensor], indices: Tensor, along: float
) -> tuple[Tensor, Tensor]:
    """The index of the best fraction for each row and its error, `known` or that of `indices`.

    `along`: how many times more the part of the error counts that makes the row longer or shorter.
    """
    tried = (scale * number.fractions()[indices])[:, None]
    off = number.fake(rows, tried, torch.zeros_like(tried)) - rows
    error = off.square().sum(1)
    if along:
        error = error + along * (off * rows).sum(1).square() / rows.square().sum(1).clamp(min=_TINY)
    return torch.where(error < known[1], indices, known[0]), torch.minimum(error, known[1])


def scales(weight: Tensor, number: Format, rule: str, granularity: str = "channel") -> Tensor:
    """Scales of `weight` [outputs, inputs, ...]: of the tensor [], its channels [outputs], or its blocks.

    As ONNX has blocks, each holds that many input channels, which it must divide, at one place of the kernel:
    [outputs, blocks, ...].
    """
    if granularity == "tensor":
        return channel_scale(weight.reshape(1, -1), number, rule).reshape(())
    size = block_size(granularity)
    if not size:
        return channel_scale(weight, number, rule)
    blocks = weight.reshape(len(weight), -1, size, *weight.shape[2:]).movedim(2, -1)
    return channel_scale(blocks.flatten(0, -2), number, rule).reshape(blocks.shape[:-1])


def spread(scale: Tensor, weight: Tensor, granularity: str = "channel") -> Tensor:
    """`scale` of the tensor, its channels or its blocks, as it broadcasts over `weight` [outputs, inputs, ...]."""
    size = block_size(granularity)
    if not size:
        return scale.reshape(-1, *[1] * (weight.ndim - 1))
    return scale.repeat_interleave(size, 1)


def rounded(weight: Tensor, number: Format, rule: str, granularity: str = "channel") -> Tensor:
    """`weight` [outputs, inputs, ...] on the grid of its scales, still in float."""
    scale = spread(scales(weight, number, rule, granularity), weight, granularity)
    return number.fake(weight, scale, torch.zeros_like(scale))


def by_output(layer: nn.Module, weight: Tensor) -> Tensor:
    """`weight` with its output channels on axis 0 (and back): a transposed kernel is [in, out, ...]."""
    return weight.transpose(0, 1) if isinstance(layer, nn.modules.conv._ConvTransposeNd) else weight  # noqa: SLF001


def input_channels(layer: nn.Module) -> int:
    """Input channels that one output of `layer` sees."""
    weight = layer.weight
    assert isinstance(weight, Tensor)  # noqa: S101 - every layer has one
    return by_output(layer, weight).shape[1]


def quantize_layer(
    graph: fx.GraphModule, node: fx.Node, layer: LayerPlan, bias_format: str | None, input_scale: Tensor | None
) -> None:
    """Replace the module that `node` calls by its operator on dequantized weights.

    The bias is stored at the accumulator's scale where `bias_format` says so and the inputs, at `input_scale`, are
    integers too; else it stays in float.
    """
    module = graphs.module(node)
    assert isinstance(module, nn.modules.conv._ConvNd | nn.Linear)  # noqa: S101, SLF001 - the plan was checked
    assert layer.weight is not None  # noqa: S101
    number = formats.load(layer.weight)
    if number.exact:
        return
    rows = by_output(module, module.weight.detach())
    scale = scales(rows, number, layer.weight_range, layer.granularity)
    # A copy: calls of one layer share the bias, but what is learned of it is each one's own.
    bias = None if module.bias is None else module.bias.detach().float().clone()
    if bias is not None and bias_format is not None and input_scale is not None and _adds_codes(number, layer):
        scale = _with_bias(scale, rows, bias, input_scale)
        added: fx.Node | None = _integer_bias(graph, node, bias, input_scale * scale)
    else:
        added = None if bias is None else graphs.store(graph, node, f"{node.target}.bias", bias)
    across = spread(scale, rows, layer.granularity)
    held = number.codes(rows, across, torch.zeros_like(across)), scale if dequantizable(number) else across
    weight = _weight(graph, node, number, held, block_size(layer.granularity) or 0)
    weight.meta[FORMAT] = _stored(weight).meta[FORMAT] = layer.weight
    _replace(graph, node, module, weight, added)


def in_bytes(graph: fx.GraphModule) -> None:
    """Write weights of few bits in a byte each: without their mark codes are not packed."""
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            node.meta.pop(FORMAT, None)


def _adds_codes(number: Format, layer: LayerPlan) -> bool:
    """Whether products with the weight are 8-bit integers at one scale per channel."""
    return isinstance(number, Integer) and number.dtype().itemsize == 1 and not block_size(layer.granularity)


def _stored(numbers: fx.Node) -> fx.Node:
    """The codes that `numbers` are made of."""
    while isinstance(numbers.args[0] if numbers.args else None, fx.Node):
        numbers = numbers.args[0]  # type: ignore[assignment]
    return numbers


def _weight(graph: fx.GraphModule, node: fx.Node, number: Format, held: tuple[Tensor, Tensor], size: int) -> fx.Node:
    """The numbers that codes [outputs, inputs, ...] stand for by their scales, laid out for the operator of `node`."""
    name, axis = f"{node.target}.weight", 1 if size else 0
    if graphs.operator(node) in _OUTPUT_SECOND:
        axis = 1 - axis
        held = held[0].transpose(0, 1).contiguous(), held[1].transpose(0, 1) if held[1].ndim > 1 else held[1]
    if dequantizable(number):
        return _dequantized(graph, node, name, held, axis, size)
    stored = graphs.store(graph, node, f"{name}_stored", held[0])
    cast = ops.function("Cast")
    if not number.ranged:
        return graphs.call(stored, cast, (stored,), name, to=_FLOAT)
    factor = graphs.store(graph, node, f"{name}_scale", held[1].contiguous())
    numbers = graphs.call(factor, cast, (stored,), f"{name}_numbers", to=_FLOAT)
    return graphs.call(numbers, ops.function("Mul"), (numbers, factor), name)


def dequantizable(number: Format) -> bool:
    """Whether DequantizeLinear takes the type that the codes are stored in."""
    return number.ranged and (isinstance(number, Integer) or number.dtype().itemsize == 1)


def _integer_bias(graph: fx.GraphModule, node: fx.Node, bias: Tensor, scale: Tensor) -> fx.Node:
    codes = torch.round(bias.double() / scale.double()).to(torch.int32)
    return _dequantized(graph, node, f"{node.target}.bias", (codes, scale), 0)


def _with_bias(scale: Tensor, weight: Tensor, bias: Tensor, input_scale: Tensor) -> Tensor:
    """`scale` raised where the bias would not fit the accumulator otherwise.

    A channel whose weights are all zero (pruned networks have them) still adds its bias: its scale is the bias's alone.
    """
    raised = torch.maximum(scale, bias.abs() / (input_scale * _BIAS_CODES))
    if not scale.ndim:
        return raised.max()
    dead = weight.abs().flatten(1).amax(1) < scale / 2
    alone = bias.abs() / (input_scale * _DEAD_BIAS_CODES)
    fits = torch.minimum(alone, alone * input_scale) > torch.finfo(torch.float32).tiny
    return torch.where(dead, torch.where(fits, alone, scale), raised)


def _dequantized(
    graph: fx.GraphModule, before: fx.Node, name: str, held: tuple[Tensor, Tensor], axis: int, size: int = 0
) -> fx.Node:
    """DequantizeLinear over stored codes and their scales along `axis`, or in blocks of `size` along it."""
    codes, scale = held[0], held[1].contiguous()
    stored = graphs.store(graph, before, f"{name}_quantized", codes)
    factor = graphs.store(graph, before, f"{name}_scale", scale)
    function = ops.function("DequantizeLinear")
    if size:  # no kernel looks for a zero point there, which would take a byte for each block
        return graphs.call(factor, function, (stored, factor), name, axis=axis, block_size=size)
    zero = graphs.store(graph, before, f"{name}_zero_point", torch.zeros_like(scale).to(codes.dtype))
    return graphs.call(zero, function, (stored, factor, zero), name, axis=axis)


def _replace(graph: fx.GraphModule, node: fx.Node, module: nn.Module, weight: fx.Node, bias: fx.Node | None) -> None:
    source, name = node.args[0], graphs.value(node)
    if isinstance(module, nn.Linear):
        replacement = _linear(node, weight, bias)
    else:
        assert isinstance(module, nn.modules.conv._ConvNd)  # noqa: S101, SLF001
        function = ops.function(graphs.operator(node))
        attributes = geometry(module)
        replacement = graphs.call(node, function, (source, weight, bias), name, str(node.target), **attributes)
    replacement.meta.update(tensor=node.meta.get("tensor"))
    membership.carry(node, replacement)
    node.replace_all_uses_with(replacement)
    graph.graph.erase_node(node)


def geometry(module: nn.modules.conv._ConvNd) -> dict[str, Any]:
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
