"""What SM 75 has no kernels for: bf16, convolutions on codes, matrix products and 3-D convolutions but in fp16."""

from collections.abc import Iterator

import onnx

from convkit.export.lint import Broken, File, Rule

_TURING = 75
_PRODUCTS, _CONVOLUTIONS = ("Gemm", "MatMul"), ("Conv", "ConvTranspose")
_ADVICE = "plan it in fp16, or build for SM 80 and later"
_VOLUME = 5
"""Dimensions of what a 3-D convolution reads, and of its weight."""


def look(file: File) -> Iterator[Broken]:
    """The nodes that such a device cannot run, or runs in float32 instead."""
    if file.device.sm != _TURING:
        return
    for node in file.model.graph.node:
        kinds = {file.kind(name) for name in (*node.input, *node.output) if name}
        if "BFLOAT16" in kinds:
            yield node, "it has BF16, SM 75 has none", "plan fp16, or build for SM 80 and later"
        elif node.op_type in _PRODUCTS and file.kind(node.input[0]) != "FLOAT16":
            yield node, "SM 75 has matrix products in fp16 alone", _ADVICE
        elif node.op_type in _CONVOLUTIONS and _rank(node, file) == _VOLUME and "FLOAT16" not in kinds:
            yield node, "SM 75 has 3-D convolutions in fp16 alone", _ADVICE
        elif node.op_type == "Conv" and all(map(file.is_dequantized, node.input[:2])):
            yield node, "SM 75 has no convolution on codes: it runs in fp32", _ADVICE


def _rank(node: onnx.NodeProto, file: File) -> int:
    """Dimensions of the weight; 0 where the file does not say."""
    weight = file.held(node.input[1])
    return 0 if weight is None else len(weight.dims)


PART = Rule("SM 75 convolves no codes, has no bf16, and matrix products and 3-D convolutions in fp16 alone", look)
