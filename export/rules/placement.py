"""Q/DQ pairs stand where a kernel makes use of them; elsewhere they cost time and numbers, and save nothing."""

from collections.abc import Iterator

import onnx

from convkit.export.lint import Broken, File, Rule

_KERNELS = ("Conv", "Gemm", "MatMul")


def look(file: File) -> Iterator[Broken]:
    """Transposed convolutions on codes, which are dequantized, and kernels of which one side only is quantized."""
    for node in file.model.graph.node:
        if node.op_type not in (*_KERNELS, "ConvTranspose") or len(node.input) < 2:  # noqa: PLR2004 - x, weight
            continue
        sides = [_dequantized(name, file) for name in node.input[:2]]
        if node.op_type == "ConvTranspose" and all(sides):
            yield node, "it has no kernel on codes and runs in float", "keep it in float in the plan"
        elif node.op_type in _KERNELS and sides == [True, False]:
            yield node, "what it reads is quantized and its weight is not: it runs in float", "quantize the weight too"


def _dequantized(name: str, file: File) -> bool:
    maker: onnx.NodeProto | None = file.makers.get(name)
    return maker is not None and maker.op_type == "DequantizeLinear"


PART = Rule("Q/DQ pairs stand where a kernel computes on codes", look)
