"""Names: the source's where it has any, valid as attributes of a module, each used once."""

from __future__ import annotations

import re

from torch import Tensor, fx, nn

_OUTSIDE = re.compile(r"[^A-Za-z0-9_]+")


def layer_path(node_name: str, kind: str) -> str:
    """The dotted layer that a node name tells of: "/layer1/layer1.0/conv1/Conv" is in layer1.0.conv1."""
    pieces: list[str] = []
    for piece in filter(None, node_name.split("/")):
        if pieces and piece.startswith(pieces[-1] + "."):
            pieces.pop()
        pieces.append(piece)
    if len(pieces) > 1 and re.fullmatch(rf"{re.escape(kind)}(_\d+)?", pieces[-1]):
        pieces.pop()
    return ".".join(pieces)


def weight_owner(tensor_name: str) -> str:
    """The layer of an initializer `<layer>.weight` or `<layer>.bias`, else ""."""
    for suffix in (".weight", ".bias"):
        if tensor_name.endswith(suffix) and len(tensor_name) > len(suffix):
            return tensor_name.removesuffix(suffix)
    return ""


class Tree:
    """The module that layers and constants are hung into, by dotted paths that never collide."""

    def __init__(self) -> None:
        self.root = nn.Module()

    def add_layer(self, wanted: str, layer: nn.Module) -> str:
        holder, path, leaf = self._place(wanted)
        holder.add_module(leaf, layer)
        return path

    def add_constant(self, wanted: str, value: Tensor) -> str:
        """A parameter if `value` is one, else a buffer."""
        holder, path, leaf = self._place(wanted)
        if isinstance(value, nn.Parameter):
            holder.register_parameter(leaf, value)
        else:
            holder.register_buffer(leaf, value)
        return path

    def _place(self, wanted: str) -> tuple[nn.Module, str, str]:
        """The module to hang into, the full path and its last piece, for a path as near to `wanted` as is free."""
        pieces = [_OUTSIDE.sub("_", piece) for piece in wanted.split(".") if piece] or ["_"]
        holder: nn.Module = self.root
        for depth, piece in enumerate(pieces[:-1]):
            inner = getattr(holder, piece, None)
            if inner is None and not self._taken(holder, piece):
                inner = nn.Module()
                holder.add_module(piece, inner)
            if type(inner) is not nn.Module:
                # Below a layer, a tensor or a method of nn.Module nothing can hang.
                pieces = [*pieces[:depth], "_".join(pieces[depth:])]
                break
            holder = inner
        leaf, number = pieces[-1], 1
        while self._taken(holder, leaf):
            number += 1
            leaf = f"{pieces[-1]}_{number}"
        return holder, ".".join([*pieces[:-1], leaf]), leaf

    def _taken(self, holder: nn.Module, name: str) -> bool:
        # The root becomes a GraphModule, whose own attributes must stay.
        return hasattr(holder, name) or (holder is self.root and (hasattr(fx.GraphModule, name) or name == "meta"))
