"""Depthwise convolutions of series with long kernels."""

from __future__ import annotations

import numpy as np
import onnx

from convkit.export.kernels import Taken
from convkit.export.pattern import Network, attributes, operand

_LEAST = 64
"""Taps: two blocks of the kernel's."""
_SERIES, _BIAS = 3, 2


def _found(network: Network, node: onnx.NodeProto) -> Taken | None:
    if node.op_type != "Conv":
        return None
    weight, told = network.constant(node.input[1]), attributes(node)
    bias = network.constant(operand(node, _BIAS))
    if weight is None or weight.ndim != _SERIES or weight.shape[1] != 1 or weight.dtype != np.float32:
        return None
    if network.shape(node.input[0])[1:2] != weight.shape[:1] or told.get("group", 1) != len(weight):
        return None
    plain = {"strides": [1], "dilations": [1], "auto_pad": b"NOTSET"}
    taps = weight.shape[2]
    if taps < _LEAST or any(told.get(key, value) != value for key, value in plain.items()):
        return None
    begin, end = told.get("pads", [0, 0])
    own = np.zeros(len(weight), np.float32) if bias is None else bias
    return Taken([node], [node.input[0], weight[:, 0], own], {"pad": begin, "margin": begin + end - taps + 1})


PART = _found
