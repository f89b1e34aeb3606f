"""FP8 has kernels for convolutions of up to 32 positions; a larger one is dequantized and runs in float32."""

import math
from collections.abc import Iterator

from convkit.export.lint import Broken, File, Rule

_MOST = 32
"""Of a kernel: 1x32 and 4x8 run in FP8, 1x33 and 6x6 do not, on SM 89 and 120 alike, depthwise or not."""


def look(file: File) -> Iterator[Broken]:
    """Convolutions on FP8 whose kernel has more."""
    for node in file.nodes:
        if node.op_type != "Conv":
            continue
        sides = [file.makers.get(name) for name in node.input[:2]]
        codes = [side.input[0] for side in sides if side is not None and side.op_type == "DequantizeLinear"]
        held = file.weight(node)
        if len(codes) < len(sides) or held is None or any(file.kind(name) != "FLOAT8E4M3FN" for name in codes):
            continue
        sizes = "x".join(map(str, held.dims[2:]))
        if math.prod(held.dims[2:]) > _MOST:
            yield (
                node,
                f"its kernel of {sizes} has more than {_MOST} positions, for which there is none in FP8",
                "plan int8 for it, or keep it in float",
            )


PART = Rule(look)
