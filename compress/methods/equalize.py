"""Cross-layer equalization: channels between two layers rescaled so that both see equal weight ranges.

For y = W2 f(W1 x) with f positively homogeneous (Relu, LeakyRelu, none), scaling row i of W1 by 1/s_i and column i of
W2 by s_i leaves y as it is; s_i = sqrt(r1_i / r2_i) makes both ranges equal (Nagel et al. 2019, eq. 11).
A Clip is not homogeneous: equalizing across a ReLU6 would change the network, so such pairs are left alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from convkit.compress import graph as graphs
from convkit.compress.method import Method
from convkit.compress.rescaling import MOST, Conv, rescale

_HOMOGENEOUS = ("Relu", "LeakyRelu")
_ROUNDS = 8


def equalize(graph: fx.GraphModule) -> fx.GraphModule:
    """`graph` with equalized pairs of convolutions; the function it computes stays the same."""
    pairs = [pair for node in graphs.computes(graph) if (pair := _pair(node)) is not None]
    with torch.no_grad():
        for _ in range(_ROUNDS):
            for first, second in pairs:
                _balance(first, second)
    return graph


def _pair(node: fx.Node) -> tuple[Conv, Conv] | None:
    """`node`'s convolution and the one that alone reads it, across nothing but a homogeneous activation."""
    first, reader = graphs.module(node), graphs.sole_user(node)
    if reader is not None and graphs.operator(reader) in _HOMOGENEOUS:
        reader = graphs.sole_user(reader)
    second = None if reader is None else graphs.module(reader)
    if reader is None or not _is_conv(first) or not _is_conv(second):
        return None
    assert isinstance(first, Conv)  # noqa: S101 - just asked
    assert isinstance(second, Conv)  # noqa: S101
    return first, second


def _is_conv(layer: nn.Module | None) -> bool:
    return isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)


def _input_channels(layer: Conv) -> Tensor:
    """The weight as [input channel, everything it meets]: groups laid side by side."""
    grouped = layer.weight.reshape(layer.groups, -1, *layer.weight.shape[1:])
    return grouped.transpose(1, 2).reshape(layer.in_channels, -1)


def _balance(first: Conv, second: Conv) -> None:
    here = first.weight.reshape(first.out_channels, -1).abs().amax(1)
    there = _input_channels(second).abs().amax(1)
    live = (here > 0) & (there > 0)
    scale = torch.where(live, (here / there.clamp(min=1e-30)).sqrt(), torch.ones_like(here)).clamp(1 / MOST, MOST)
    rescale(first, made=scale)
    rescale(second, read=scale)


PART = Method(change=equalize)
