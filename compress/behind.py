"""Biases behind their convolutions, where an engine wants them there: an Add that makes the tensor in its place."""

from __future__ import annotations

from torch import Tensor, fx

from convkit.compress import graph as graphs
from convkit.compress import ops, weights

_WITHOUT = "_without_bias"
"""Behind the name of a tensor: as it is before its bias is added."""


def put(graph: fx.GraphModule) -> None:
    """Take the bias of every quantized Conv out of it, into an Add that makes the tensor in its place."""
    for node in list(graph.graph.nodes):
        if graphs.operator(node) == "Conv" and len(node.args) == len(("x", "w", "b")) and _in_format(node.args[1]):
            _put_behind(graph, node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _in_format(weight: object) -> bool:
    """Whether it is a quantized layer's; a network's own convolution may compute its weight and its bias."""
    return isinstance(weight, fx.Node) and weights.FORMAT in weight.meta


def _put_behind(graph: fx.GraphModule, conv: fx.Node) -> None:
    values = _bias_values(conv.args[2])
    if values is None:
        return
    name, layer = graphs.value(conv), str(conv.meta["layer"])
    conv.args = conv.args[:2]
    across = values.reshape(-1, *[1] * len(conv.kwargs["kernel_shape"]))  # type: ignore[arg-type]
    bias = graphs.store(graph, conv, f"{layer}.bias", across)
    total = graphs.call(conv, ops.function("Add"), (conv, bias), name)
    total.meta["tensor"], conv.meta["value"] = conv.meta.get("tensor"), f"{name}{_WITHOUT}"
    conv.replace_all_uses_with(total, delete_user_cb=lambda user: user is not total)


def _bias_values(bias: object) -> Tensor | None:
    """What a bias, kept in float or in int32 codes, comes to; None where there is none."""
    held = graphs.constant(bias)
    if held is not None or not isinstance(bias, fx.Node):
        return held
    codes, scale = (graphs.constant(argument) for argument in bias.args[:2])
    assert codes is not None  # it was stored by `_dequantized`  # noqa: S101
    assert scale is not None  # noqa: S101
    return codes * scale


def bias(node: fx.Node) -> Tensor | None:
    """The bias [m, 1, …] of a Conv that `put` took out of it; None where it has not."""
    user = graphs.sole_user(node)
    if user is None or graphs.operator(node) != "Conv" or graphs.operator(user) != "Add" or len(user.args) < len("ab"):
        return None
    is_own = graphs.value(node) == f"{graphs.value(user)}{_WITHOUT}"
    return graphs.constant(user.args[1]) if is_own else None
