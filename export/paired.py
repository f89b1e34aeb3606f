"""Weights of grouped convolutions of width 8 as products of pairs of groups: 16 by 16 is the tensor cores' least."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

GROUP, PAIR = 8, 16


def pairs(grouped: Tensor, raised: int) -> Tensor:
    """[C, 8, k, k] as [k², `raised` / 16, 16, 16], half of which is nothing, as are channels beyond C."""
    channels, side = grouped.shape[0], grouped.shape[2]
    made = grouped.new_zeros(side * side, raised // PAIR, PAIR, PAIR)
    for channel in range(channels):
        begin = channel % PAIR // GROUP * GROUP
        made[:, channel // PAIR, channel % PAIR, begin : begin + GROUP] = grouped[channel].reshape(GROUP, -1).T
    return made


def whole(paired: Tensor) -> Tensor:
    """The same as the weight [raised, 16, k, k] of a convolution in groups of 16."""
    taps, count = paired.shape[:2]
    side = round(taps**0.5)
    return paired.permute(1, 2, 3, 0).reshape(count * PAIR, PAIR, side, side)


def single(paired: Tensor, channels: int) -> Tensor:
    """The weight [channels, 8, k, k] that `paired` was made of."""
    side = round(paired.shape[0] ** 0.5)
    begin = [channel % PAIR // GROUP * GROUP for channel in range(channels)]
    rows = [paired[:, c // PAIR, c % PAIR, b : b + GROUP] for c, b in enumerate(begin)]
    return torch.stack(rows).mT.reshape(channels, GROUP, side, side).contiguous()
