"""What ONNX Runtime made of a file: from its own optimized graph, which nodes stand for which of the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_ADDED = re.compile(r"(_nchwc|_nhwc|_token_\d+|/duplicated|_quant)+$")
"""What its transformers append to the name of a node they rewrite, or to that of its result."""


def origins(source: onnx.ModelProto, optimized: onnx.ModelProto) -> Mapping[str, tuple[str, ...]]:
    """Node of `optimized` -> names of nodes and tensors of `source`; one that has none has those of what it reads."""
    known = {name for node in source.graph.node for name in (node.name, *node.output)}
    known |= {value.name for value in source.graph.input}
    made: dict[str, tuple[str, ...]] = {value.name: (value.name,) for value in optimized.graph.input}
    found: dict[str, tuple[str, ...]] = {}
    for node in optimized.graph.node:
        names = [_ADDED.sub("", name) for name in (node.name, *node.output)]
        own = tuple(dict.fromkeys(name for name in names if name in known))
        read = next((made[name] for name in node.input if name in made), ())
        found[node.name] = own or read
        made |= dict.fromkeys(node.output, found[node.name])
    return found
