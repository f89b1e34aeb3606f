"""A Resize to sizes names those of all axes: where a size is free, the parser loses the axes that it does not name."""

from collections.abc import Iterator

from convkit.export.lint import Broken, File, Rule

_SIZES = 3
"""The input that holds them."""


def look(file: File) -> Iterator[Broken]:
    """Those with sizes of some axes, of a tensor that has a free one or an unknown shape."""
    for node in file.nodes:
        named = node.op_type == "Resize" and any(attribute.name == "axes" for attribute in node.attribute)
        if named and len(node.input) > _SIZES and node.input[_SIZES] and 0 in file.shapes.get(node.input[0], (0,)):
            advice = "give the sizes of all axes, or scales; or fix every size of the input"
            yield node, "its sizes are those of some axes, and a size of what it reads is free", advice


PART = Rule(look)
