"""What TensorRT for RTX lacks on SM 75: products and 3-D convolutions in float32, and convolutions on codes."""

from collections.abc import Iterator

from convkit.export.lint import Broken, File, Rule

_TURING = 75
_PRODUCTS, _CONVS = ("Gemm", "MatMul"), ("Conv", "ConvTranspose")
_VOLUME = 5
"""Dimensions of the weight of a 3-D convolution."""
_ADVICE = "plan it in fp16, or build for SM 80 and later"


def look(file: File) -> Iterator[Broken]:
    """The nodes that such a device cannot run, or runs in float, whatever their channels, kernels and groups."""
    if file.device.sm != _TURING:
        return
    for node in file.nodes:
        if node.op_type not in (*_PRODUCTS, *_CONVS) or len(node.input) < 2:  # noqa: PLR2004 - x, weight
            continue
        half = file.kind(node.input[0]) == "FLOAT16"
        if node.op_type in _PRODUCTS and not half:
            yield node, "SM 75 has matrix products in fp16 alone", _ADVICE
        elif node.op_type == "Conv" and all(map(file.dequantized, node.input[:2])):
            yield node, "SM 75 has no convolutions on codes and runs it in float", _ADVICE
        elif node.op_type in _CONVS and not half and (weight := file.weight(node)) and len(weight.dims) == _VOLUME:
            yield node, "SM 75 has 3-D convolutions in fp16 alone", _ADVICE


PART = Rule(look, ("tensorrt_rtx",))
