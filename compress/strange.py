"""Nodes in ONNX's own domain that it has no operator for: so NVIDIA's tools write those of plugins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from convkit.compress import nested

if TYPE_CHECKING:
    import onnx

_DOMAIN = "convkit.strange"


def nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """All that there are."""
    import onnx

    bodies = {function.name for function in model.functions if not function.domain}
    return [
        node
        for node in nested.nodes(model.graph.node)
        if node.domain in ("", "ai.onnx") and node.op_type not in bodies and not onnx.defs.has(node.op_type)
    ]


@contextmanager
def apart(model: onnx.ModelProto) -> Iterator[None]:
    """For as long as the block runs they stand in a domain of their own: the checker takes any operator there."""
    import onnx

    found = [(node, node.domain) for node in nodes(model)]
    for node, _ in found:
        node.domain = _DOMAIN
    if found:
        model.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
    try:
        yield
    finally:
        for node, domain in found:
            node.domain = domain
        if found:
            del model.opset_import[-1]
