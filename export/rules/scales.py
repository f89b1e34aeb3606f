"""Scales are constants above 0: one for activations, one for weights or one a channel, blocks for few bits alone."""

from collections.abc import Iterator

import numpy as np
import onnx

from convkit.export.lint import Broken, File, Rule

_BLOCKED = ("INT4", "FLOAT4E2M1", "FLOAT8E4M3FN")
"""Types that may have a scale for each block."""


def look(file: File) -> Iterator[Broken]:
    """Q/DQ nodes whose scale is none of that."""
    for node in file.nodes:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 2:  # noqa: PLR2004 - x, scale
            continue
        scale = file.constant(node.input[1])
        if scale is None:
            yield node, "its scale is computed while it runs", "calibrate, and store the scale as a constant"
            continue
        numbers = scale.astype(np.float64)
        if not (numbers > 0).all() or not np.isfinite(numbers).all():
            yield (
                node,
                f"a scale of it is {numbers[~((numbers > 0) & np.isfinite(numbers))].flat[0]:g}, not a number above 0",
                "calibrate on other samples",
            )
        elif scale.size > 1 and not _holds_weight(node, file):
            yield node, f"activations have {scale.size} scales", "quantize activations with one scale for all"
        elif _blocks(node) and file.kind(_codes(node)) not in _BLOCKED:
            yield node, f"{file.kind(_codes(node))} has no block scales", "give each channel one scale"


def _codes(node: onnx.NodeProto) -> str:
    """The tensor of codes that tells their type."""
    if node.op_type == "DequantizeLinear":
        return str(node.input[0])
    return str(node.input[2] if len(node.input) > 2 else node.output[0])  # noqa: PLR2004 - x, scale, zero point


def _blocks(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "block_size" and attribute.i for attribute in node.attribute)


def _holds_weight(node: onnx.NodeProto, file: File) -> bool:
    """Whether what it quantizes is a constant in the end."""
    name = node.input[0]
    while name in file.makers and file.makers[name].input:
        name = file.makers[name].input[0]
    return name in file.tensors


PART = Rule(look)
