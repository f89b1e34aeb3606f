"""Q/DQ pairs stand where a kernel makes use of them; elsewhere they cost time and numbers, and save nothing."""

from collections.abc import Iterator

from convkit.export.lint import Broken, File, Rule

_KERNELS = ("Conv", "Gemm", "MatMul")
_UNKNOWN = "UNDEFINED"
"""The type of what nothing is known of, such as what a plugin makes."""


def look(file: File) -> Iterator[Broken]:
    """Transposed convolutions on codes, which are dequantized, and kernels of which one side only is quantized."""
    alone = _read_in_float(file)
    for node in file.nodes:
        if node.op_type not in (*_KERNELS, "ConvTranspose") or len(node.input) < 2:  # noqa: PLR2004 - x, weight
            continue
        sides = [file.dequantized(name) for name in node.input[:2]]
        kinds = [_codes(name, file) for name in node.input[:2]]
        if node.op_type == "ConvTranspose" and all(sides):
            yield node, "it has no kernel on codes and runs in float", "keep it in float in the plan"
        elif node.op_type in _KERNELS and all(sides) and len({*kinds} - {_UNKNOWN}) > 1:
            words = f"what it reads has codes in {kinds[0]} and its weight in {kinds[1]}: it runs in float"
            yield node, words, "quantize both to one type"
        elif node.op_type in _KERNELS and sides == [True, False] and node.input[0] in alone:
            yield node, "what it reads is quantized and its weight is not: it runs in float", "quantize the weight too"


def _codes(name: str, file: File) -> str:
    """The type of the codes that a tensor is dequantized from."""
    return file.kind(file.makers[name].input[0]) if file.dequantized(name) else ""


def _read_in_float(file: File) -> set[str]:
    """Tensors that nothing reads but kernels with float weights: another's pair serves those that compute on codes.

    A layer that a plan keeps in float beside such others reads what these read.
    """
    served: set[str] = set()
    for node in file.nodes:
        floating = node.op_type in _KERNELS and len(node.input) > 1 and not file.dequantized(node.input[1])
        served |= set(node.input[1:] if floating else node.input)
    return {name for node in file.nodes for name in node.input} - served


PART = Rule(look)
