"""Nodes that stand in place of one: its name and metadata are what theirs are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx


class Replacement:
    """Written one after the other; the last one makes what `node` made. `taken`, to which theirs are added, are names
    that nodes and tensors of the file have."""

    def __init__(self, node: onnx.NodeProto, taken: set[str]) -> None:
        self._node, self._taken = node, taken
        self._nodes: list[onnx.NodeProto] = []

    def op(self, kind: str, given: Sequence[str], what: str, **told: Any) -> str:  # noqa: ANN401 - ONNX's attributes
        """A node of the operator `kind`, and the tensor that it makes, called `what` behind the name of `node`'s."""
        from onnx import helper

        made = self._free(f"{self._node.output[0]}/{what}")
        name = self._free(f"{self._node.name or self._node.output[0]}/{what}")
        node = helper.make_node(kind, given, [made], name=name, **told)
        node.metadata_props.extend(self._node.metadata_props)
        self._nodes.append(node)
        return made

    def _free(self, name: str) -> str:
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

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


def names(model: onnx.ModelProto) -> set[str]:
    """Of all nodes and tensors."""
    graph = model.graph
    found = {value.name for values in (graph.input, graph.initializer) for value in values}
    return found | {name for node in graph.node for name in (node.name, *node.output)}


def replaced(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> onnx.ModelProto:
    """`model`, edited: its graph has `nodes`."""
    written = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(written)
    return model
