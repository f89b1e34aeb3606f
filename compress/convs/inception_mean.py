"""The inception block of TimesNet: convolutions of sizes 1, 3, 5 … over one image, and their mean.

Wu et al., TimesNet, ICLR 2023, section 3.2. Trained, it is one convolution of the largest size.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from convkit.compress.conv import Conv, Example


class InceptionBlockV1(nn.Module):
    """x [N, Cin, H, W]. Names are those of the reference implementation."""

    def __init__(self, in_channels: int, out_channels: int, num_kernels: int = 6) -> None:
        super().__init__()
        if num_kernels < 1:
            raise ValueError(f"an inception block has one kernel at least, not {num_kernels}")
        self.kernels = nn.ModuleList(
            nn.Conv2d(in_channels, out_channels, 2 * i + 1, padding=i) for i in range(num_kernels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([kernel(x) for kernel in self.kernels], dim=-1).mean(-1)


def _examples() -> Iterator[Example]:
    """The paper's six kernels, and two."""
    yield Example(InceptionBlockV1(3, 5), {"x": (3, 7, 12)})
    yield Example(InceptionBlockV1(4, 4, 2), {"x": (4, 9, 6)})


PART = Conv(
    paper="TimesNet: Temporal 2D-Variation Modeling (ICLR 2023)",
    tier="T0",
    layers=(InceptionBlockV1,),
    examples=_examples,
    usual=lambda: Example(InceptionBlockV1(16, 32), {"x": (16, 24, 24)}),
)
