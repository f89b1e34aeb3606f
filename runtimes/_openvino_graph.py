"""What OpenVINO made of a file: from the graph it executes, which nodes stand for which of the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def origins(executed: Any) -> Mapping[str, tuple[str, ...]]:  # noqa: ANN401 - the engine's own type
    """Node of the graph `executed` (an ov.Model) -> names of the file's nodes that were fused into it.

    One that the engine put in (Reorder) has those of what it reads.
    """
    found: dict[str, tuple[str, ...]] = {}
    for node in executed.get_ordered_ops():
        own = tuple(name for name in _fact(node, "originalLayersNames").split(",") if name)
        sources = (port.get_source_output().get_node().get_friendly_name() for port in node.inputs())
        read = next((found[name] for name in sources if found.get(name)), ())
        constant = _fact(node, "layerType") == "Const"
        found[node.get_friendly_name()] = () if constant else (*own, *(() if _is_layer(node) else read))
    return found


def _is_layer(node: Any) -> bool:  # noqa: ANN401 - the engine's own type
    """Whether the node computes something of its own, and does not only change the format of what it reads."""
    return _fact(node, "layerType") not in {"Reorder", "Convert", "Eltwise", "FakeQuantize", "PowerStatic"}


def _fact(node: Any, key: str) -> str:  # noqa: ANN401 - the engine's own type
    facts = node.get_rt_info()
    if key not in facts:
        return ""
    value = facts[key]
    return str(value.get() if hasattr(value, "get") else value)
