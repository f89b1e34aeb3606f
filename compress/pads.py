"""Padding merged into the operator that reads it, where the result is exactly the same.

`F.pad(x, asymmetric)` before a conv is how torch writes TensorFlow's SAME padding; ONNX convs take asymmetric pads
themselves, and engines only fuse the form without a Pad node.
"""

import math
from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from convkit.compress import graph as graphs

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SPATIAL = 2
"""The first spatial axis; batch and channels come before it."""
_SIZES, _VALUE, _AXES = 1, 2, 3
"""Positions of Pad's inputs."""


def argument(node: fx.Node, position: int) -> Any:  # noqa: ANN401 - an fx argument
    """The node's input at `position`, None where it is absent."""
    return node.args[position] if position < len(node.args) else None


def mergeable(graph: fx.GraphModule) -> dict[fx.Node, list[int]]:
    """Pad nodes that vanish into their only reader, with their spatial pads (all begins, then all ends)."""
    found = {}
    for node in graph.graph.nodes:
        if graphs.operator(node) == "Pad" and len(node.users) == 1:
            pads, value = _pads(node), _value(node)
            reader = next(iter(node.users))
            if pads is not None and value is not None and reader.args[0] is node and _exact(graph, reader, pads, value):
                found[node] = pads
    return found


def _pads(node: fx.Node) -> list[int] | None:
    """Spatial pads of a constant, non-negative Pad that leaves batch and channels alone."""
    sizes = graphs.constant(argument(node, _SIZES))
    if sizes is None or node.kwargs.get("mode", "constant") != "constant" or bool((sizes < 0).any()):
        return None
    every = _over_all_axes(node, [int(size) for size in sizes])
    if every is None:
        return None
    rank = len(every) // 2
    begins, ends = every[:rank], every[rank:]
    outside = any(begins[:_SPATIAL] + ends[:_SPATIAL])
    return None if rank <= _SPATIAL or outside else begins[_SPATIAL:] + ends[_SPATIAL:]


def fills_with_zeros(node: fx.Node) -> bool:
    """Whether every number that a Pad adds is zero or one of its input's own, so that each has a code."""
    return node.kwargs.get("mode", "constant") != "constant" or _value(node) == 0


def _over_all_axes(node: fx.Node, sizes: list[int]) -> list[int] | None:
    if argument(node, _AXES) is None:
        return sizes
    axes, spec = graphs.constant(argument(node, _AXES)), node.meta.get("tensor")
    if axes is None or spec is None:
        return None
    rank, count = len(spec.shape), len(sizes) // 2
    every = [0] * (2 * rank)
    for position, axis in enumerate(int(axis) % rank for axis in axes):
        every[axis], every[axis + rank] = sizes[position], sizes[position + count]
    return every


def _value(node: fx.Node) -> float | None:
    if argument(node, _VALUE) is None:
        return 0.0
    value = graphs.constant(argument(node, _VALUE))
    return None if value is None else float(value)


def _exact(graph: fx.GraphModule, reader: fx.Node, pads: list[int], value: float) -> bool:
    if reader.op == "call_module":
        layer = graph.get_submodule(str(reader.target))
        return isinstance(layer, _CONVS) and layer.padding_mode == "zeros" and value == 0
    kwargs = reader.kwargs
    if kwargs.get("auto_pad", "NOTSET") != "NOTSET" or kwargs.get("ceil_mode"):
        return False
    if graphs.operator(reader) == "Conv":
        return value == 0
    if graphs.operator(reader) == "AveragePool":  # padded elements must count, as the zeros of the Pad node do
        return value == 0 and bool(kwargs.get("count_include_pad")) and _within_kernel(kwargs, pads)
    return graphs.operator(reader) == "MaxPool" and value == -math.inf and _within_kernel(kwargs, pads)


def _within_kernel(kwargs: Mapping[str, Any], pads: list[int]) -> bool:
    """ONNX Runtime refuses a pool whose padding is as large as its kernel."""
    kernel = list(kwargs["kernel_shape"])
    return all(p < k for p, k in zip(merged(kwargs.get("pads"), pads), kernel + kernel, strict=True))


def merged(own: Any, extra: list[int]) -> list[int]:  # noqa: ANN401 - an fx attribute
    """The sum of an operator's own pads (None: none) and those of a merged Pad."""
    return list(extra) if own is None else [int(a) + b for a, b in zip(own, extra, strict=True)]
