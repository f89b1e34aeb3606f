"""Nodes that stand in place of one: its name and metadata are what theirs are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx


class Replacement:
    """Written one after the other; the last one makes what `node` made."""

    def __init__(self, node: onnx.NodeProto) -> None:
        self._node = node
        self._nodes: list[onnx.NodeProto] = []

    def op(self, kind: str, given: Sequence[str], what: str, **told: Any) -> str:  # noqa: ANN401 - ONNX's attributes
        """A node of the operator `kind`, and the tensor that it makes, called `what` behind the name of `node`'s."""
        from onnx import helper

        made = f"{self._node.output[0]}/{what}"
        name = f"{self._node.name or self._node.output[0]}/{what}"
        node = helper.make_node(kind, given, [made], name=name, **told)
        node.metadata_props.extend(self._node.metadata_props)
        self._nodes.append(node)
        return made

    def held(self, what: str, values: Sequence[int] | np.ndarray) -> str:
        """A constant: whole numbers, or an array of any type."""
        from onnx import numpy_helper

        array = values if isinstance(values, np.ndarray) else np.array(values, np.int64)
        return self.op("Constant", [], what, value=numpy_helper.from_array(array))

    def nodes(self, named: str = "") -> list[onnx.NodeProto]:
        """All; the one that makes `named`, or else the last one, bears the name of `node`."""
        last = self._nodes[-1]
        bearer = next((node for node in self._nodes if node.output[0] == named), last)
        bearer.name, last.output[0] = self._node.name, self._node.output[0]
        return self._nodes


def replaced(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> onnx.ModelProto:
    """`model`, edited: its graph has `nodes`."""
    written = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(written)
    return model
