"""Steps in proportion to what they change, as Adafactor has them (Shazeer and Stern, ICML 2018).

AdamW moves every number by the rate alike. With norms folded, the weights of channels differ by orders of magnitude: a
rate that is a small step for one channel is many times another's weights. Here the rate is that of a channel whose
weights are of the usual size, and all others move in proportion to theirs.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from convkit.compress import patches
from convkit.compress.format import Format
from convkit.compress.training.layers import Layer, Read
from convkit.compress.training.rounded import bounds

USUAL = 0.1
"""Root mean square of a channel's weights that moves by the rate itself; networks with norms have some such."""
_LEAST = 1e-3
"""Of the layer's root mean square: a channel of zeros can still learn."""
_TYPICAL = 0.25
"""Of the range of what a layer reads: its usual size."""

_MOVES = 4e-3
"""Of the step between two codes: how far the usual rate moves a weight. Measured on EfficientNet-Lite0, where 0.002 to
0.005 is best in INT8 and 0.004 in INT4."""
_EXACT = 3e-4
"""The usual rate where no weight is rounded."""
_NUMBERS = 4096

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


def rate(weights: Iterable[Format]) -> float:
    """The usual learning rate of layers with weights in these formats: what moves them, on average, by a part of
    their step, of those with scales where there are any."""
    numbers = list(weights)
    ranged = [number for number in numbers if number.ranged] or [one for one in numbers if not one.exact]
    return _MOVES * statistics.fmean(_step(number) for number in ranged) if ranged else _EXACT


def _step(number: Format) -> float:
    """Between two codes, on normally distributed weights of the usual size: what they err by, if evenly spread."""
    places = (torch.arange(_NUMBERS) + 0.5) / _NUMBERS
    weights = USUAL * math.sqrt(2) * torch.erfinv(2 * places - 1)
    plain = torch.ones(()), torch.zeros(())
    off = number.fake(weights, *(number.parameters(weights.min(), weights.max()) if number.ranged else plain)) - weights
    return float(off.square().mean().sqrt()) * math.sqrt(12)


def _size(reads: Read | None) -> Tensor:
    """Of what a layer reads, usually."""
    if reads is None:
        return torch.ones(())
    zero = float(reads.rounds.get_buffer("zero"))
    low, high = bounds(reads.rounds.number)
    scale: Tensor = reads.rounds.scale().detach()
    return scale * max(high - zero, zero - low) * _TYPICAL
