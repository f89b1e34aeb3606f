"""The block of TimesNet: a series folded to images by its main periods, convolved there and unfolded again.

Wu et al., TimesNet, ICLR 2023, equations 1-6. Periods are those of the data it was calibrated on, frozen: engines take
such a network, and its periods do not depend on what else is in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.conv import Conv, Example
from convkit.compress.convs.inception_mean import InceptionBlockV1


def main_frequencies(x: Tensor, top_k: int) -> list[int]:
    """The `top_k` strongest frequencies of series [N, T, C], as the paper has them: by the amplitude's mean."""
    strength = torch.fft.rfft(x.double(), dim=1).abs().mean((0, 2))
    strength[0] = 0
    found: list[int] = strength.topk(top_k).indices.tolist()
    return found


class TimesBlock(nn.Module):
    """x [N, T, d_model] to as much. `frequencies`: periods that T holds, each once. Names are those of the reference
    implementation.
    """

    def __init__(
        self, length: int, frequencies: Sequence[int], *, d_model: int, d_ff: int, num_kernels: int = 6
    ) -> None:
        super().__init__()
        if not all(0 < frequency <= length // 2 for frequency in frequencies):
            raise ValueError(f"a series of {length} has the frequencies 1 to {length // 2}, not all of {frequencies}")
        self.length, self.frequencies = length, tuple(frequencies)
        blocks = (InceptionBlockV1(d_model, d_ff, num_kernels), nn.GELU(), InceptionBlockV1(d_ff, d_model, num_kernels))
        self.conv = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.length:
            raise ValueError(f"the block was made for series of {self.length}, not of {x.shape[1]}")
        periods = [self.length // frequency for frequency in self.frequencies]
        folded = {period: self._folded(x, period) for period in dict.fromkeys(periods)}
        made = torch.stack([folded[period] for period in periods], -1)
        weights = self._strength(x).softmax(1)
        return (made * weights.reshape(-1, 1, 1, len(self.frequencies))).sum(-1) + x

    def _folded(self, x: Tensor, period: int) -> Tensor:
        """What the convolutions make of rows of one period each."""
        rows = math.ceil(self.length / period)
        image = F.pad(x, (0, 0, 0, rows * period - self.length)).reshape(-1, rows, period, x.shape[2])
        made: Tensor = self.conv(image.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return made.reshape(-1, rows * period, x.shape[2])[:, : self.length]

    def _strength(self, x: Tensor) -> Tensor:
        """The amplitude of each frequency [N, k], of all channels together."""
        turns = torch.outer(torch.tensor(self.frequencies).double(), torch.arange(self.length).double())
        waves = torch.cat((torch.cos(2 * math.pi / self.length * turns), torch.sin(2 * math.pi / self.length * turns)))
        real, imaginary = (waves.to(x) @ x).chunk(2, 1)
        return (real.square() + imaginary.square()).sqrt().mean(-1)


def _examples() -> Iterator[Example]:
    """Periods that the series holds and others, one of them twice."""
    yield Example(TimesBlock(24, (2, 6, 5), d_model=3, d_ff=4, num_kernels=3), {"x": (24, 3)})
    yield Example(TimesBlock(17, (1, 4), d_model=4, d_ff=5), {"x": (17, 4)})


_SHARES = "it decides how much every period counts"
PART = Conv(
    paper="TimesNet: Temporal 2D-Variation Modeling (ICLR 2023)",
    tier="T2",
    layers=(TimesBlock,),
    examples=_examples,
    usual=lambda: Example(TimesBlock(192, (2, 8, 16, 4, 1), d_model=16, d_ff=32), {"x": (192, 16)}),
    kept={"Softmax": _SHARES, "Sqrt": _SHARES, "MatMul": _SHARES},
)
