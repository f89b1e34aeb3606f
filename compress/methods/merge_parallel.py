"""Parallel convolutions whose results are added, or averaged, merged into one, exactly: a kernel with the taps of all.

A branch of kernel k, dilation d and padding p reads offsets t d - p, t < k, along an axis; the merged kernel spans the
offsets of all, with zeros where none reads (Ding et al., RepVGG, CVPR 2021, and UniRepLKNet, CVPR 2024, section 3.1).
Branches are merged where that multiplies no more often than they do together.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import fx, nn

from convkit.compress import graph as graphs
from convkit.compress.method import Method
from convkit.compress.rescaling import Conv


def merge(graph: fx.GraphModule) -> fx.GraphModule:
    """`graph` with one convolution for each sum, or mean of a stack, of several that read the same tensor."""
    for node in list(graphs.computes(graph)):
        branches = _BRANCHES.get(graphs.operator(node), _none)(node)
        if len(branches) > 1 and len(set(branches)) == len(branches):
            _merge(graph, node, branches)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


def _merge(graph: fx.GraphModule, node: fx.Node, branches: Sequence[fx.Node]) -> None:
    """What `node` makes of its `branches` as one convolution, in place of the first of them, where there is one."""
    if not all(map(_may_merge, branches)) or len({branch.args[0] for branch in branches}) > 1:
        return
    merged = functools.reduce(_merged, map(graphs.module, branches))
    if merged is None:
        return
    if graphs.operator(node) == "ReduceMean":
        with torch.no_grad():
            for parameter in merged.parameters():
                parameter /= len(branches)
    first, *others = branches
    graph.set_submodule(str(first.target), merged)
    first.meta["value"] = graphs.value(node)
    node.replace_all_uses_with(first)
    graph.graph.erase_node(node)
    for other in others:
        _erase(other)


def _erase(node: fx.Node) -> None:
    """Take `node` out with all that alone reads it."""
    for user in list(node.users):
        _erase(user)
    node.graph.erase_node(node)


def _none(_: fx.Node) -> list[fx.Node]:
    return []


def _added(node: fx.Node) -> list[fx.Node]:
    """What an Add adds."""
    return [read for read in node.args if isinstance(read, fx.Node)]


def _stacked(node: fx.Node) -> list[fx.Node]:
    """What a mean is taken of, over the axis along which it is stacked."""
    stack, axes = node.args[0], graphs.constant(node.args[1]) if len(node.args) > 1 else None
    if not isinstance(stack, fx.Node) or axes is None or axes.numel() != 1 or node.kwargs.get("keepdims", 1):
        return []
    if graphs.operator(stack) != "Concat" or graphs.sole_user(stack) is not node:
        return []
    rank = len(graphs.shape(stack) or ())
    parts = [part for part in stack.args if isinstance(part, fx.Node)]
    along = {int(axes) % rank, int(stack.kwargs.get("axis", 0)) % rank}  # type: ignore[call-overload]
    for part in parts:
        at = graphs.constant(part.args[1]) if graphs.operator(part) == "Unsqueeze" else None
        if at is None or at.numel() != 1 or graphs.sole_user(part) is not stack:
            return []
        along.add(int(at) % rank)
    return [part.args[0] for part in parts if isinstance(part.args[0], fx.Node)] if len(along) == 1 else []


_BRANCHES: Mapping[str, Callable[[fx.Node], list[fx.Node]]] = {"Add": _added, "ReduceMean": _stacked}


def _may_merge(node: fx.Node) -> bool:
    """Whether `node` is a convolution that nothing else reads, padded with zeros."""
    layer = graphs.module(node)
    if not isinstance(layer, Conv) or layer.transposed or isinstance(layer.padding, str):
        return False
    return graphs.sole_user(node) is not None and not graphs.is_shared(node) and layer.padding_mode == "zeros"


def _merged(one: Conv | None, other: Conv) -> Conv | None:
    """One layer that computes the sum of both; None where none can, or where it would cost more."""
    if one is None or any(getattr(one, name) != getattr(other, name) for name in ("in_channels", "out_channels", "groups", "stride")):
        return None
    spans = [_span(layer) for layer in (one, other)]
    lows = [min(low for low, _ in axis) for axis in zip(*spans, strict=True)]
    highs = [max(high for _, high in axis) for axis in zip(*spans, strict=True)]
    size = [high - low + 1 for low, high in zip(lows, highs, strict=True)]
    taps = sum(math.prod(layer.kernel_size) for layer in (one, other))
    if math.prod(size) > taps or not _lines_up(one, other, size, lows):
        return None
    made: Conv = type(one)(
        one.in_channels, one.out_channels, tuple(size), one.stride, tuple(-low for low in lows), 1, one.groups
    )
    with torch.no_grad():
        weight = sum(_placed(layer, size, lows) for layer in (one, other))
        biases = [layer.bias.double() for layer in (one, other) if layer.bias is not None]
        made.weight = nn.Parameter(torch.as_tensor(weight).to(one.weight.dtype))
        made.bias = nn.Parameter(torch.stack(biases).sum(0).to(one.weight.dtype)) if biases else None
    return made


def _span(layer: Conv) -> list[tuple[int, int]]:
    """The first and the last offset that each axis reads."""
    sizes = zip(layer.kernel_size, layer.dilation, layer.padding, strict=True)
    return [(-int(pad), (kernel - 1) * dilation - int(pad)) for kernel, dilation, pad in sizes]


def _lines_up(one: Conv, other: Conv, size: Sequence[int], lows: Sequence[int]) -> bool:
    """Whether both give as many results as the merged one, whose padding is the same at both ends."""
    lengths = [
        [2 * int(pad) - dilation * (kernel - 1) for kernel, dilation, pad in
         zip(layer.kernel_size, layer.dilation, layer.padding, strict=True)]
        for layer in (one, other)
    ]  # fmt: skip
    merged = [-2 * low - (kernel - 1) for low, kernel in zip(lows, size, strict=True)]
    return lengths[0] == lengths[1] == merged and all(low <= 0 for low in lows)


def _placed(layer: Conv, size: Sequence[int], lows: Sequence[int]) -> torch.Tensor:
    """The layer's kernel in one of `size`, float64."""
    found = layer.weight.new_zeros(*layer.weight.shape[:2], *size, dtype=torch.float64)
    axes = zip(layer.kernel_size, layer.dilation, layer.padding, lows, strict=True)
    at = tuple(slice(-int(p) - low, -int(p) - low + (k - 1) * d + 1, d) for k, d, p, low in axes)
    found[(slice(None), slice(None), *at)] = layer.weight.double()
    return found


PART = Method(about="merge parallel convolutions whose results are added", change=merge)
