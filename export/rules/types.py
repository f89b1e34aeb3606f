"""Types of codes and numbers that the engine has."""

from collections.abc import Iterator

import onnx

from convkit.export.lint import Broken, File, Rule

_REFUSED = {
    "UINT8": "it would be read as INT8: other numbers; quantize with signed codes and no zero point",
    "INT16": "plan int8 or fp16",
    "UINT16": "plan int8 or fp16",
    "UINT4": "plan int4 for weights, int8 for activations",
    "INT2": "plan int4 for weights",
    "UINT2": "plan int4 for weights",
    "FLOAT8E5M2": "plan fp8_e4m3",
    "FLOAT8E5M2FNUZ": "plan fp8_e4m3",
    "FLOAT8E4M3FNUZ": "plan fp8_e4m3",
    "STRING": "read text outside of the network",
    "COMPLEX64": "compute with real and imaginary parts",
    "COMPLEX128": "compute with real and imaginary parts",
}
_SINCE = {"FLOAT8E4M3FN": ("FP8", 89, "int8"), "BFLOAT16": ("BF16", 80, "fp16")}
"""Their names, the first compute capability that has them, and what to plan on those before."""


def look(file: File) -> Iterator[Broken]:
    """The first node that makes or holds each tensor of such a type; all that have one which the device lacks."""
    ends = {value.name for value in (*file.model.graph.input, *file.model.graph.output)}
    for node in file.nodes:
        kinds = {file.kind(name) for name in (*node.input, *node.output) if name}
        for kind in sorted(kinds & _SINCE.keys()):
            name, least, instead = _SINCE[kind]
            if file.device.sm is not None and file.device.sm < least:
                advice = f"plan {instead}, or build for SM {least} and later"
                yield node, f"it has {name}, SM {file.device.sm} has none", advice
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear", "Cast"):
            continue
        for kind in sorted(kinds & _REFUSED.keys()):
            if kind != "UINT8" or not _is_pixels(node, ends):
                yield node, f"it has {kind}", _REFUSED[kind]
        if "INT4" in kinds and node.op_type == "QuantizeLinear" and node.input[0] not in file.tensors:
            yield node, "activations are in INT4", "plan int8 for activations; weights may be int4"


def _is_pixels(node: onnx.NodeProto, ends: set[str]) -> bool:
    """Whether it makes numbers of an input of bytes, or an output of bytes of numbers, which the engine takes."""
    return node.op_type == "Cast" and not ends.isdisjoint((node.input[0], node.output[0]))


PART = Rule(look)
