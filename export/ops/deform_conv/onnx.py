"""`DeformConv`, which TensorRT for RTX has no operator for; its weight in float, or codes with a scale a channel."""

from __future__ import annotations

import numpy as np
import onnx

from convkit.export.kernels import Taken
from convkit.export.pattern import Network, attributes, operand

_BIAS, _MASK = 3, 4
"""Where they stand among the inputs, behind x, weight, offset."""
_IMAGES = 4


def _found(network: Network, node: onnx.NodeProto) -> Taken | None:
    if node.op_type != "DeformConv":
        return None
    told = attributes(node)
    one = [_one(told.get(key, usual)) for key, usual in (("strides", [1]), ("pads", [0]), ("dilations", [1]))]
    held = _weight(network, node)
    if held is None or None in one or told.get("group", 1) != 1:
        return None
    nodes, weight, scale = held
    x, offset = node.input[0], node.input[2]
    held_bias, mask = operand(node, _BIAS), operand(node, _MASK)
    bias = network.constant(held_bias) if held_bias else np.zeros(len(weight), np.float32)
    if bias is None:
        return None
    own = {"parts": told.get("offset_group", 1), **dict(zip(("stride", "pad", "dilation"), one, strict=True))}
    operands = [x, offset, mask or offset, weight, scale, bias]
    kind = "int8" if weight.dtype == np.int8 else network.dtype(x)
    return Taken(nodes, operands, {**own, "masked": int(bool(mask))}, {"weight": kind})


PART = _found


def _weight(network: Network, node: onnx.NodeProto) -> tuple[list[onnx.NodeProto], np.ndarray, np.ndarray] | None:
    """The nodes that are the kernel's, codes or numbers [Cout, Cin, kh, kw], and the scale of each output channel."""
    weight, maker = network.constant(node.input[1]), network.maker(node.input[1])
    if weight is not None and weight.ndim == _IMAGES:
        return [node], weight, np.ones(len(weight), np.float32)
    if maker is None or maker.op_type != "DequantizeLinear":
        return None
    codes, scale, *zero = (network.constant(name) for name in maker.input)
    if codes is None or scale is None or codes.dtype != np.int8 or codes.ndim != _IMAGES:
        return None
    if (scale.size > 1 and attributes(maker).get("axis", 1) != 0) or any(each is None or each.any() for each in zero):
        return None
    return [node, maker], codes, np.broadcast_to(scale.reshape(-1), codes.shape[:1]).astype(np.float32)


def _one(sizes: list[int]) -> int | None:
    """What all are; None where they differ."""
    return sizes[0] if len(set(sizes)) == 1 else None
