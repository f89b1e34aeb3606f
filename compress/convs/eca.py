"""ECA: efficient channel attention, a short convolution along the channels of the pooled image.

Wang et al., ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks, CVPR 2020, equation 7.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from convkit.compress.conv import Conv, Example


def kernel_size(channels: int, gamma: float = 2.0, b: float = 1.0) -> int:
    """The odd size that the paper adapts to `channels` (equation 12). Published ResNets have others: their weights
    tell.
    """
    size = int(abs((math.log2(channels) + b) / gamma))
    return size if size % 2 else size + 1


class ECA(nn.Module):
    """x [N, C, …] scaled by sigmoid(conv(mean of each channel)). Names are those of the reference implementation."""

    def __init__(self, k_size: int = 3) -> None:
        super().__init__()
        if k_size < 1 or k_size % 2 == 0:
            raise ValueError(f"the kernel of ECA along channels is odd, not {k_size}")
        self.conv = nn.Conv1d(1, 1, k_size, padding=k_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 3:  # noqa: PLR2004 - NC and more
            raise ValueError(f"ECA takes [N, C, …] with something to pool, not {list(x.shape)}")
        pooled = x.mean(tuple(range(2, x.ndim)))
        gate = torch.sigmoid(self.conv(pooled.unsqueeze(1))).squeeze(1)
        return x * gate.reshape(*gate.shape, *[1] * (x.ndim - 2))


def _examples() -> Iterator[Example]:
    """Images and series; as many channels as the kernel is long, and more."""
    yield Example(ECA(3), {"x": (8, 7, 10)})
    yield Example(ECA(kernel_size(64)), {"x": (64, 4, 5)})
    yield Example(ECA(5), {"x": (5, 17)})


PART = Conv(
    paper="ECA-Net: Efficient Channel Attention (CVPR 2020)",
    tier="T1",
    layers=(ECA,),
    examples=_examples,
    usual=lambda: Example(ECA(5), {"x": (256, 28, 28)}),
    kept={"Sigmoid": "a gate multiplies every channel: its error is the image's"},
)
