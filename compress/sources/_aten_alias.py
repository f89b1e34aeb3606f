"""Whether in-place operators can be read as plain ones.

`x.add_(y)` is `x = x + y` as long as nobody reads x, or a view that shares its memory, afterwards. Where somebody
does, the program must be made functional first, which torch can, but which costs a second trace.
"""

from __future__ import annotations

import operator

import torch
from torch import fx

from convkit.compress.sources import _aten

_RETURN_INPUT = {"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "type_as"}
"""Their schemas promise a new tensor, but in evaluation mode they return the one they are given."""


def is_ambiguous(graph: fx.Graph) -> bool:
    """Whether some tensor is read after its memory was written through another name."""
    place = {node: i for i, node in enumerate(graph.nodes)}
    memory: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        source = _shares_with(node)
        memory[node] = memory[source] if source is not None else node
    written = [node for node in graph.nodes if isinstance(node.target, torch._ops.OpOverload)  # noqa: SLF001
               and _aten.is_in_place(node.target)]  # fmt: skip
    return any(_read_later(node, memory, place) for node in written)


def _shares_with(node: fx.Node) -> fx.Node | None:
    """The node whose memory the result of `node` is, or may be, a view of."""
    first = node.args[0] if node.args else None
    if not isinstance(first, fx.Node):
        return None
    if node.target is operator.getitem:
        return first
    if not isinstance(node.target, torch._ops.OpOverload):  # noqa: SLF001 - no public name
        return None
    returns = node.target._schema.returns  # noqa: SLF001 - no public name
    aliases = any(result.alias_info is not None for result in returns)
    return first if aliases or node.target._opname in _RETURN_INPUT else None  # noqa: SLF001 - no public name


def _read_later(writer: fx.Node, memory: dict[fx.Node, fx.Node], place: dict[fx.Node, int]) -> bool:
    older = [node for node in place if memory[node] is memory[writer] and place[node] < place[writer]]
    return any(place[user] > place[writer] for node in older for user in node.users)
