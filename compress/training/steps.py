"""Steps in proportion to what they change, as Adafactor has them (Shazeer and Stern, ICML 2018).

AdamW moves every number by the rate alike. With norms folded, the weights of channels differ by orders of magnitude: a
rate that is a small step for one channel is many times another's weights. Here the rate is that of a channel whose
weights are of the usual size, and all others move in proportion to theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from convkit.compress import patches
from convkit.compress.training.layers import Layer, Read
from convkit.compress.training.rounded import bounds

USUAL = 0.1
"""Root mean square of a channel's weights that moves by the rate itself; networks with norms have some such."""
_LEAST = 1e-3
"""Of the layer's root mean square: a channel of zeros can still learn."""
_TYPICAL = 0.25
"""Of the range of what a layer reads: its usual size."""

Units = Mapping[int, Tensor]
"""By the id of a parameter, how many rates each of its numbers moves by."""


def units(layers: Iterable[Layer]) -> Units:
    """Of weights, by the size of their channel, and of biases, by what such weights make of a usual input; whatever
    else there is moves by the rate itself."""
    found = {}
    for layer in layers:
        weight = layer.weight.weight
        rows = patches.outputs_first(layer.node, weight.detach())
        size = rows.flatten(1).square().mean(1).sqrt()
        unit = size.clamp(min=max(float(size.square().mean().sqrt()) * _LEAST, torch.finfo(size.dtype).tiny)) / USUAL
        across = unit.reshape(-1, *[1] * (rows.ndim - 1)).expand_as(rows)
        found[id(weight)] = patches.outputs_first(layer.node, across).contiguous()
        for bias in (layer.bias, layer.behind):
            if bias is not None and bias.numel() == len(unit):
                found[id(bias)] = (unit * _size(layer.reads)).reshape(bias.shape)
    return found


def _size(reads: Read | None) -> Tensor:
    """Of what a layer reads, usually."""
    if reads is None:
        return torch.ones(())
    zero = float(reads.rounds.get_buffer("zero"))
    low, high = bounds(reads.rounds.number)
    scale: Tensor = reads.rounds.scale().detach()
    return scale * max(high - zero, zero - low) * _TYPICAL
