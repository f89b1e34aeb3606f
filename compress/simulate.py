"""The simulation: a quantized Model in the integer arithmetic of the engine that will run it.

A Model with Q/DQ nodes says what each number means; run as it stands, its convolutions are float sums, whose last
bits flip a code here and there, and every flipped code moves all that follow. `integers` replaces
dequantize → operator → quantize by the one kernel that an engine fuses it into, code for code the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from convkit.compress import graph as graphs
from convkit.compress import integer
from convkit.compress.model import Model, clone

_EPSILON = torch.finfo(torch.float32).eps
_NARROW = (torch.uint8, torch.int8)


def integers(model: Model) -> Model:
    """`model` with every group that ONNX Runtime fuses as one integer kernel; names of codes stay."""
    graph = clone(model.graph)
    for node in list(graph.graph.nodes):
        if graphs.operator(node) == "QuantizeLinear":
            _fuse(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return model.replace(graph=graph)


BF16 = 2.0**-7
_ROUNDINGS = {"float16": 2.0**-10, "bfloat16": BF16}
"""A unit in the last place of a number of these types, at most, over it."""


def is_quantized(model: Model) -> bool:
    """Whether `model` holds a QuantizeLinear node."""
    return any(graphs.operator(node) == "QuantizeLinear" for node in model.graph.graph.nodes)


def rounding(model: Model) -> float:
    """How far two roundings to the coarsest of the 16-bit floats that tensors of `model` are in may go apart, over the
    number itself; 0 where there is none."""
    specs = (node.meta.get("tensor") for node in model.graph.graph.nodes)
    return max((_ROUNDINGS.get(spec.dtype, 0.0) for spec in specs if spec is not None), default=0.0)


def _fuse(quantize: fx.Node) -> None:
    scale, zero = quantize.args[1], _at(quantize, 2)
    producer = _producer(quantize)
    found = integer.KERNELS.get(graphs.operator(producer)) if producer is not None else None
    if producer is None or found is None or zero is None or not _is_narrow(zero) or graphs.module(producer) is not None:
        return
    kernel, count = found
    inputs = [_codes(producer, position) for position in range(count)]
    if any(codes is None and _at(producer, position) is not None for position, codes in enumerate(inputs)):
        return
    with quantize.graph.inserting_before(quantize):
        node = quantize.graph.call_function(kernel, (*inputs, (scale, zero)), dict(producer.kwargs))
    node.meta.update(quantize.meta)
    quantize.replace_all_uses_with(node)
    quantize.graph.erase_node(quantize)


def _producer(quantize: fx.Node) -> fx.Node | None:
    """The operator whose result is quantized; a Relu or Clip between them that the codes saturate at is no operator."""
    source = quantize.args[0]
    while isinstance(source, fx.Node) and graphs.sole_user(source) is not None:
        if not saturates(source, quantize):
            return source
        source = source.args[0]
    return None


def saturates(activation: fx.Node, quantize: fx.Node) -> bool:
    """Whether the activation's bounds lie at or beyond those of the codes."""
    scale, zero = graphs.constant(quantize.args[1]), graphs.constant(_at(quantize, 2))
    bounds = _bounds(activation)
    if bounds is None or scale is None or zero is None or scale.numel() != 1 or zero.is_floating_point():
        return False
    limits = torch.iinfo(zero.dtype)
    low, high = (float(scale) * (limit - int(zero)) for limit in (limits.min, limits.max))
    return bounds[0] - low <= _EPSILON and high - bounds[1] <= _EPSILON


def _bounds(node: fx.Node) -> tuple[float, float] | None:
    """What Relu or Clip cuts at."""
    if graphs.operator(node) == "Relu":
        return 0.0, torch.inf
    if graphs.operator(node) != "Clip":
        return None
    given = [_at(node, position) for position in (1, 2)]
    low, high = map(graphs.constant, given)
    if any(bound is None and argument is not None for bound, argument in zip((low, high), given, strict=True)):
        return None  # it is computed as the network runs
    return -torch.inf if low is None else float(low), torch.inf if high is None else float(high)


def _codes(node: fx.Node, position: int) -> tuple[Any, Any, Any] | None:
    """(codes, scale, zero point) of an input; None where it is absent, or nothing that an 8-bit kernel takes."""
    source = _at(node, position)
    if not isinstance(source, fx.Node):
        return None
    is_bias = position == 2  # noqa: PLR2004 - Conv's and Gemm's third input
    if graphs.operator(source) != "DequantizeLinear":
        return (source, None, None) if is_bias and source.op == "get_attr" else None
    codes, scale, zero = source.args[0], source.args[1], _at(source, 2)
    if not is_bias and not (_is_narrow(zero) and _along_outputs(node, position, source)):
        return None
    return codes, scale, zero


def _along_outputs(node: fx.Node, position: int, dequantize: fx.Node) -> bool:
    """Whether the input has one scale, or is a weight with one for each output channel."""
    scale = graphs.constant(dequantize.args[1])
    if scale is None or scale.numel() == 1:
        return scale is not None
    outputs = {"Conv": 0, "Gemm": 0 if node.kwargs.get("transB") else 1, "MatMul": 1}
    axis = int(dequantize.kwargs.get("axis", 1))  # type: ignore[arg-type]
    return position == 1 and outputs.get(graphs.operator(node)) == axis


def _is_narrow(zero: Any) -> bool:  # noqa: ANN401 - an fx argument
    held = graphs.constant(zero)
    return held is not None and held.dtype in _NARROW


def _at(node: fx.Node, position: int) -> Any:  # noqa: ANN401 - an fx argument
    return node.args[position] if position < len(node.args) else None
