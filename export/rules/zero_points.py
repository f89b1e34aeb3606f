"""Zero points are 0: codes are symmetric around it."""

from collections.abc import Iterator

from convkit.export.lint import Broken, File, Rule


def look(file: File) -> Iterator[Broken]:
    """Q/DQ nodes with another one, or with one that is computed."""
    for node in file.nodes:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3 or not node.input[2]:  # noqa: PLR2004 - x, scale, zero point
            continue
        held = file.constant(node.input[2])
        if held is None:
            yield node, "its zero point is computed", "store it as a constant of zeros"
        elif held.astype(float).any():
            yield (
                node,
                f"its zero point is {held.astype(float).flat[0]:g}, not 0",
                "quantize symmetrically: signed codes",
            )


PART = Rule(look)
