"""Which nodes of a network are a novel convolution's, and which of them it wants in float.

It is told where the network is read, and travels with nodes: in their `meta` as `op` and `keep`, in ONNX files in their
metadata, so that a file knows it wherever it goes.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from convkit.compress import conv, parts
from convkit.compress import graph as graphs

if TYPE_CHECKING:
    import onnx
    from torch import fx, nn

DOMAIN = "convkit"
"""Of nodes that stand for one in ONNX files."""
_KEYS = {"op": "convkit.op", "keep": "convkit.keep"}
"""What `meta` and a file's metadata call `NAME:PLACE`, the outermost novel convolution and the layer of the network
that it is, and the reason to stay in float.
"""
_TAG = re.compile(r"[A-Za-z][\w-]{0,99}:", re.ASCII)
_CALL = re.compile(r"_\d+$", re.ASCII)
"""What further calls of a layer are told apart by."""


def owners(module: nn.Module) -> dict[str, str]:
    """The part of each layer that is one's, by the layer's name: of its class, or of one that this is made from."""
    kinds = {name: (_of_class(kind) for kind in type(layer).__mro__) for name, layer in module.named_modules()}
    return {name: part for name, found in kinds.items() if (part := next(filter(None, found), ""))}


def _of_class(kind: type) -> str:
    return of_kind(f"{kind.__module__}.{kind.__qualname__}")


def of_kind(kind: str) -> str:
    """The part that has the class called `kind` with its module; private ones of that module are the part's, too."""
    module, _, name = kind.rpartition(".")
    part = parts.of_module(conv.FOLDER, module)
    if not part:
        return ""
    layers = {layer.__qualname__ for layer in conv.load(part).layers}
    return part if name.startswith("_") or name in layers else ""


def mark(graph: fx.GraphModule) -> None:
    """Tell each node, whose `tags` hold `NAME:PLACE` of all that it is part of, the outermost first, why it is kept."""
    for node in graph.graph.nodes:
        reasons = (_reason(node, tag) for tag in node.meta.pop("tags", ()))
        reason = next(filter(None, reasons), "")
        if reason:
            node.meta["keep"] = reason


def _reason(node: fx.Node, tag: str) -> str:
    name, _, place = tag.partition(":")
    kept = conv.load(name).kept
    inside = "." + _CALL.sub("", graphs.key(node).removeprefix(f"{place}."))
    named = (reason for layer, reason in kept.items() if fnmatch.fnmatchcase(inside, f"*.{layer}"))
    return kept.get(graphs.operator(node), "") or next(named, "")


def reason_to_keep(node: fx.Node) -> str:
    """Why a novel convolution that `node` is part of wants it in float; "" where there is no reason."""
    return str(node.meta.get("keep", ""))


def kept_in(graph: fx.GraphModule) -> dict[str, str]:
    """What stays in float for such a reason: layers, or tensors of what is no layer, each with the reason."""
    reasons = {graphs.key(node): reason_to_keep(node) for node in graphs.computes(graph)}
    return {name: reason for name, reason in reasons.items() if reason}


def carry(source: fx.Node, target: fx.Node) -> None:
    """What stands for a node is of what it was."""
    target.meta.update({key: source.meta[key] for key in _KEYS if key in source.meta})


def metadata(meta: Mapping[str, object]) -> dict[str, str]:
    """The metadata of an ONNX node, of the `meta` of a node."""
    return {name: str(meta[key]) for key, name in _KEYS.items() if meta.get(key)}


def meta(node: onnx.NodeProto) -> dict[str, str]:
    """The `meta` that an ONNX node tells; what is no tag says nothing."""
    told = {entry.key: entry.value for entry in node.metadata_props}
    found = {key: told[name] for key, name in _KEYS.items() if told.get(name)}
    return found if _TAG.match(found.get("op", "")) else {}


def tag(node: onnx.NodeProto) -> str:
    """`NAME:PLACE` of an ONNX node; "" where it says nothing."""
    return meta(node).get("op", "")


def write(node: onnx.NodeProto, told: Mapping[str, str]) -> None:
    """Give `node` the metadata `told`, and no other."""
    del node.metadata_props[:]
    for key, value in told.items():
        node.metadata_props.add(key=key, value=value)


def retold(node: onnx.NodeProto, op: str) -> None:
    """Change what `node` is part of; why it is kept stays."""
    write(node, metadata({**meta(node), "op": op}))


def tags(stack: Sequence[tuple[str, str]], known: Mapping[str, str] | None) -> tuple[str, ...]:
    """`NAME:PLACE` of all that a node inside layers `stack` (name, class) is part of, the outermost first.

    `known`: owners of the network's layers; None where there are only the names of their classes.
    """
    named = (
        (known.get(re.sub(r"@\d+", "", path), "") if known is not None else of_kind(kind), path) for path, kind in stack
    )
    return tuple(f"{name}:{path.replace('@', '.')}" for name, path in named if name)
