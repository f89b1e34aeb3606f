"""A stride-2 convolution on an image as a stride-1 convolution on its 2x2 blocks, exactly.

Engines fill their vectors with channels; an image has three. SpaceToDepth turns [C, H, W] into [4C, H/2, W/2], and
the kernel's tap u becomes tap floor((u - pad) / 2) of block row (u - pad) mod 2. More multiplications (zeros fill the
odd kernel up), fewer and longer memory runs; whether it pays is measured.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from convkit.compress import graph as graphs
from convkit.compress import ops, pads
from convkit.compress.method import Method

_IMAGE = 4
"""Channels up to which an input counts as an image."""
_BLOCK = 2
Span = tuple[int, int, int]
"""First and last tap of the new kernel, and the padding behind it."""


def rewrite(graph: fx.GraphModule) -> fx.GraphModule:
    """`graph` with every fitting convolution of a graph input rewritten; odd and free image sizes do not fit."""
    merged = pads.mergeable(graph)
    for node in list(graphs.computes(graph)):
        conv, source = graphs.module(node), node.args[0]
        if not isinstance(conv, nn.Conv2d) or not isinstance(source, fx.Node) or graphs.is_shared(node):
            continue
        extra = merged.get(source, [0, 0, 0, 0])
        image = source.args[0] if source in merged else source
        if isinstance(image, fx.Node) and image.op == "placeholder" and _fits(conv, image):
            _rewrite(graph, node, image, [int(p) + e for p, e in zip([*conv.padding] * 2, extra, strict=True)])
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _fits(conv: nn.Conv2d, image: fx.Node) -> bool:
    plain = conv.stride == (_BLOCK, _BLOCK) and conv.dilation == (1, 1) and conv.groups == 1
    spec = image.meta.get("input")
    even = spec is not None and all(isinstance(size, int) and size % _BLOCK == 0 for size in spec.shape[2:])
    return plain and even and conv.in_channels <= _IMAGE and conv.padding_mode == "zeros"


def _rewrite(graph: fx.GraphModule, node: fx.Node, image: fx.Node, padding: list[int]) -> None:
    conv, shape = graphs.module(node), graphs.shape(image)
    assert isinstance(conv, nn.Conv2d)  # noqa: S101 - it fits
    assert shape is not None  # noqa: S101 - it fits
    kernel = conv.kernel_size
    high, wide = (_span(kernel[i], padding[i], padding[i + 2], shape[i + 2]) for i in range(2))
    if high[2] < 0 or wide[2] < 0:
        return
    before, after = (-high[0], -wide[0]), (high[2], wide[2])
    name = graphs.value(image)
    blocks = graphs.call(
        graphs.behind_inputs(graph), ops.function("SpaceToDepth"), (image,), f"{name}_blocks", blocksize=2
    )
    amounts = graphs.store(graph, node, f"{name}_pads", torch.tensor([0, 0, *before, 0, 0, *after]))
    padded = graphs.call(amounts, ops.function("Pad"), (blocks, amounts), f"{name}_padded")
    layer = nn.Conv2d(4 * conv.in_channels, conv.out_channels, (high[1] - high[0] + 1, wide[1] - wide[0] + 1))
    layer.weight = nn.Parameter(_block_kernel(conv.weight.detach(), (padding[0], padding[1]), high, wide))
    layer.bias = conv.bias
    graph.set_submodule(str(node.target), layer.eval())
    node.args = (padded,)


def _span(kernel: int, begin: int, end: int, size: int) -> Span:
    """Taps of the block kernel along one axis, and how far it must be padded behind for as many outputs as before."""
    first, last = (-begin) // _BLOCK, (kernel - 1 - begin) // _BLOCK
    outputs = (size + begin + end - kernel) // _BLOCK + 1
    return first, last, outputs - 1 - size // _BLOCK + (last + 1)


def _block_kernel(weight: Tensor, begin: tuple[int, int], high: Span, wide: Span) -> Tensor:
    """[M, C, kh, kw] as [M, 4C, kh', kw']; channel (row * 2 + column) * C + c, as SpaceToDepth orders them."""
    m, c, kh, kw = weight.shape
    blocks = weight.new_zeros(m, 2, 2, c, high[1] - high[0] + 1, wide[1] - wide[0] + 1)
    for u in range(kh):
        for v in range(kw):
            (a, row), (b, column) = divmod(u - begin[0], _BLOCK), divmod(v - begin[1], _BLOCK)
            blocks[:, row, column, :, a - high[0], b - wide[0]] = weight[:, :, u, v]
    return blocks.reshape(m, 4 * c, *blocks.shape[-2:])


PART = Method(about="run a stride-2 convolution of an image on its 2x2 blocks", change=rewrite)
