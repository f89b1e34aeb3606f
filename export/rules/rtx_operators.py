"""Operators that TensorRT has and TensorRT for RTX lacks."""

from collections.abc import Iterator

from convkit.export.lint import Broken, File, Rule

_LACKED = {
    "NonMaxSuppression": "choose boxes outside of the network",
    "NonZero": "sizes that depend on numbers are for outside of the network",
    "RoiAlign": "write GridSample, or run it outside of the network",
}


def look(file: File) -> Iterator[Broken]:
    """Each such node, unless a plugin may have it."""
    for node in file.nodes:
        if node.op_type in _LACKED and not node.domain and not file.device.plugins:
            yield node, f"TensorRT for RTX has no {node.op_type}", f"{_LACKED[node.op_type]}, or build it for TensorRT"


PART = Rule("operators are those of TensorRT for RTX", look, ("tensorrt_rtx",))
