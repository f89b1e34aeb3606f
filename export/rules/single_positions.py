"""A convolution of a single position that sums few products is written by the engine itself, in float32, where each
channel of its weight has a scale of its own."""

import math
from collections.abc import Iterator

from convkit.export.lint import Broken, File, Rule

_MOST = 4
"""Products of each result: of 1 to 4 channels they run in float, of 5 in INT8 and FP8; of two positions all do."""


def look(file: File) -> Iterator[Broken]:
    """Those on codes, such as the last of a squeeze-and-excitation."""
    for node in file.nodes:
        if node.op_type != "Conv" or not all(map(file.dequantized, node.input[:2])):
            continue
        weight, sizes = file.weight(node), file.shapes.get(node.input[0], ())[2:]
        scale = file.tensors.get(file.makers[node.input[1]].input[1])
        if weight is None or scale is None or not sizes or math.prod(sizes) != 1:
            continue
        if math.prod(scale.dims) > 1 and math.prod(weight.dims[1:]) <= _MOST:
            words = f"it sums {math.prod(weight.dims[1:])} products for a single position, which runs in float"
            yield node, words, "keep it in float in the plan"


PART = Rule(look, ("tensorrt_rtx",))
