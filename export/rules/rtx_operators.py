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
    bodies = {(function.domain, function.name) for function in file.model.functions}
    for node in file.nodes:
        if file.device.plugins:
            continue
        if node.op_type in _LACKED and not node.domain:
            yield node, f"TensorRT for RTX has no {node.op_type}", f"{_LACKED[node.op_type]}, or build it for TensorRT"
        elif node.op_type.endswith("_TRT") and (node.domain, node.op_type) not in bodies:
            words = f"{node.op_type} is a plugin of TensorRT's own, which TensorRT for RTX has not"
            yield node, words, "build it for TensorRT, or give a plugin that has it (--plugin)"


PART = Rule(look, ("tensorrt_rtx",))
