"""What SM 75 has no kernels for: matrix products in anything but fp16, and bf16 anywhere."""

from collections.abc import Iterator

from convkit.export.lint import Broken, File, Rule

_TURING = 75
_PRODUCTS = ("Gemm", "MatMul")


def look(file: File) -> Iterator[Broken]:
    """The nodes that such a device cannot run."""
    if file.device.sm != _TURING:
        return
    for node in file.model.graph.node:
        kinds = {file.kind(name) for name in (*node.input, *node.output) if name}
        if "BFLOAT16" in kinds:
            yield node, "it has BF16, SM 75 has none", "plan fp16, or build for SM 80 and later"
        elif node.op_type in _PRODUCTS and file.kind(node.input[0]) != "FLOAT16":
            yield node, "SM 75 has matrix products in fp16 alone", "plan it in fp16, or build for SM 80 and later"


PART = Rule("SM 75 has no bf16, and matrix products in fp16 alone", look)
