"""Operators that do nothing taken out, and spatial means written as the pooling that engines run in low precision."""

from torch import fx

from convkit.compress import graph as graphs
from convkit.compress import ops
from convkit.compress.method import Method

_NOTHING = ("Identity", "Dropout")
_SPATIAL = 2
"""Axes before it are batch and channels."""


def simplify(graph: fx.GraphModule) -> fx.GraphModule:
    """`graph` without Identity and Dropout; ReduceMean over all spatial axes becomes GlobalAveragePool."""
    for node in list(graphs.computes(graph)):
        if graphs.operator(node) in _NOTHING and isinstance(node.args[0], fx.Node):
            if not any(user.op == "output" for user in node.users):
                graphs.bypass(node, node.args[0])
        elif graphs.operator(node) == "ReduceMean":
            _pool(node)
    graph.recompile()
    return graph


def _pool(node: fx.Node) -> None:
    """GlobalAveragePool in place of a mean over height and width; behind it a Flatten where they are dropped."""
    source, axes = node.args[0], graphs.constant(node.args[1]) if len(node.args) > 1 else None
    shape = graphs.shape(source) if isinstance(source, fx.Node) else None
    if shape is None or axes is None or len(shape) <= _SPATIAL:
        return
    if sorted(int(a) % len(shape) for a in axes.reshape(-1)) != list(range(_SPATIAL, len(shape))):
        return
    if node.kwargs.get("keepdims", 1):
        node.target, node.args, node.kwargs = ops.function("GlobalAveragePool"), (source,), {}
        return
    pooled = graphs.call(node, ops.function("GlobalAveragePool"), (source,), f"{graphs.value(node)}_pooled")
    pooled.meta["layer"] = node.meta.get("layer", "")
    flat = graphs.call(
        pooled, ops.function("Flatten"), (pooled,), graphs.value(node), node.meta.get("layer", ""), axis=1
    )
    node.replace_all_uses_with(flat)
    node.graph.erase_node(node)


PART = Method(change=simplify)
