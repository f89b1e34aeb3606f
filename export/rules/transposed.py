"""Transposed convolutions are in fp32 or fp16: in bf16 the builder of TensorRT for RTX knows none, on no SM."""

from collections.abc import Iterator

from convkit.export.lint import Broken, File, Rule


def look(file: File) -> Iterator[Broken]:
    """Those that read bf16, whether it was dequantized or not."""
    for node in file.nodes:
        if node.op_type == "ConvTranspose" and file.kind(node.input[0]) == "BFLOAT16":
            yield node, "there is no transposed convolution in BF16", "plan fp16, or keep it in float in the plan"


PART = Rule(look, ("tensorrt_rtx",))
