"""An image padded with empty channels, exactly, to the number that 8-bit dot products take at a time.

x86 (VNNI) and Arm (SDOT) multiply and add four neighbouring bytes in one step; kernel libraries give an image of three
channels to a slower path. The new channels are zero, and so are the weights that read them.
"""

from __future__ import annotations

import torch
from torch import fx, nn
from torch.nn import functional as F

from convkit.compress import graph as graphs
from convkit.compress import ops, pads
from convkit.compress.method import Method

_STEP = 4
_MOST = 3
"""One channel is added to three at most: of a mono recording, three quarters of the work would be on zeros."""
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def align(graph: fx.GraphModule) -> fx.GraphModule:
    """`graph` with the convolutions of a graph input reading a multiple of four channels, where that adds a third of
    their work at most; grouped ones do not fit.
    """
    merged, aligned = pads.mergeable(graph), dict[fx.Node, fx.Node]()
    for node in list(graphs.computes(graph)):
        conv, source = graphs.module(node), node.args[0]
        if not isinstance(conv, _CONVS) or not isinstance(source, fx.Node):
            continue
        image = source.args[0] if source in merged else source
        missing = -conv.in_channels % _STEP
        if (
            0 < missing * _MOST <= conv.in_channels
            and conv.groups == 1
            and isinstance(image, fx.Node)
            and image.op == "placeholder"
        ):
            if image not in aligned:
                aligned[image] = _aligned(graph, image, missing, 2 + len(conv.kernel_size))
            (source if source in merged else node).replace_input_with(image, aligned[image])
            _widen(conv, missing)
    graph.recompile()
    return graph


def _aligned(graph: fx.GraphModule, image: fx.Node, missing: int, rank: int) -> fx.Node:
    """A Pad of `image` [N, C, …] with `missing` channels of zeros behind its own."""
    amounts, name = torch.zeros(2 * rank, dtype=torch.int64), f"{graphs.value(image)}_aligned"
    amounts[rank + 1] = missing
    first = next(node for node in graph.graph.nodes if node.op != "placeholder")
    stored = graphs.store(graph, first, f"{name}_pads", amounts)
    return graphs.call(stored, ops.function("Pad"), (image, stored), name)


def _widen(conv: nn.Conv1d | nn.Conv2d | nn.Conv3d, missing: int) -> None:
    behind = [0, 0] * len(conv.kernel_size)
    conv.weight = nn.Parameter(F.pad(conv.weight.detach(), [*behind, 0, missing]))
    conv.in_channels += missing


PART = Method(change=align)
