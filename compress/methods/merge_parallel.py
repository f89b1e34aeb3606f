"""Parallel convolutions whose results are added, or averaged, merged into one, exactly: a kernel with the taps of all.

A branch of kernel k, dilation d and padding p reads offsets t d - p, t < k, along an axis; the merged kernel spans the
offsets of all, with zeros where none reads (Ding et al., RepVGG, CVPR 2021, and UniRepLKNet, CVPR 2024, section 3.1).
Branches are merged where that multiplies no more often than they do together.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast

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
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


def _merge(graph: fx.GraphModule, node: fx.Node, branches: Sequence[fx.Node]) -> None:
    """What `node` makes of its `branches` as one convolution, in place of the first of them, where there is one."""
    if not all(map(_may_merge, branches)) or len({branch.args[0] for branch in branches}) > 1:
        return
    layers = [cast("Conv", graphs.module(branch)) for branch in branches]
    merged = functools.reduce(_merged, layers[1:], cast("Conv | None", layers[0]))
    if merged is None:
        return
    if graphs.operator(node) == "ReduceMean":
        with torch.no_grad():
            for parameter in merged.parameters():
                parameter.div_(len(branches))
    first = branches[0]
    graph.set_submodule(str(first.target), merged)
    first.meta["value"] = graphs.value(node)
    node.replace_all_uses_with(first)
    graph.graph.erase_node(node)


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
    along = {int(axes) % rank, int(str(stack.kwargs.get("axis", 0))) % rank}
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
    return graphs.sole_user(node) is not None and layer.padding_mode == "zeros"


def _merged(one: Conv | None, other: Conv) -> Conv | None:
    """One layer that computes the sum of both; None where none can, or where it would cost more."""
    if one is None or any(
        getattr(one, name) != getattr(other, name) for name in ("in_channels", "out_channels", "groups", "stride")
    ):
        return None
    both = list(zip(_axes(one), _axes(other), strict=True))
    lows = [min(-pad for _, _, pad in axis) for axis in both]
    highs = [max((kernel - 1) * dilation - pad for kernel, dilation, pad in axis) for axis in both]
    size = [high - low + 1 for low, high in zip(lows, highs, strict=True)]
    taps = sum(math.prod(layer.kernel_size) for layer in (one, other))
    if math.prod(size) > taps or not _lines_up(one, other, size, lows):
        return None
    kind = cast("type[nn.Conv2d]", type(one))
    padding = cast("tuple[int, int]", tuple(-low for low in lows))
    made: Conv = kind(one.in_channels, one.out_channels, tuple(size), one.stride, padding, groups=one.groups)  # type: ignore[arg-type]  # of any rank
    with torch.no_grad():
        weight = _placed(one, size, lows) + _placed(other, size, lows)
        biases = [layer.bias.double() for layer in (one, other) if layer.bias is not None]
        made.weight = nn.Parameter(weight.to(one.weight.dtype))
        made.bias = nn.Parameter(torch.stack(biases).sum(0).to(one.weight.dtype)) if biases else None
    return made


def _axes(layer: Conv) -> list[tuple[int, int, int]]:
    """Kernel, dilation and padding of each axis."""
    padding = cast("tuple[int, ...]", layer.padding)
    return list(zip(layer.kernel_size, layer.dilation, padding, strict=True))


def _lines_up(one: Conv, other: Conv, size: Sequence[int], lows: Sequence[int]) -> bool:
    """Whether both give as many results as the merged one, whose padding is the same at both ends."""
    lengths = [[2 * pad - dilation * (kernel - 1) for kernel, dilation, pad in _axes(layer)] for layer in (one, other)]
    merged = [-2 * low - (kernel - 1) for low, kernel in zip(lows, size, strict=True)]
    return lengths[0] == lengths[1] == merged and all(low <= 0 for low in lows)


def _placed(layer: Conv, size: Sequence[int], lows: Sequence[int]) -> torch.Tensor:
    """The layer's kernel in one of `size`, float64."""
    found = layer.weight.new_zeros(*layer.weight.shape[:2], *size, dtype=torch.float64)
    starts = [-pad - low for (_, _, pad), low in zip(_axes(layer), lows, strict=True)]
    steps = zip(starts, _axes(layer), strict=True)
    at = tuple(slice(start, start + (kernel - 1) * dilation + 1, dilation) for start, (kernel, dilation, _) in steps)
    found[(slice(None), slice(None), *at)] = layer.weight.double()
    return found


PART = Method(change=merge)
