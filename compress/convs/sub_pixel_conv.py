"""Sub-pixel convolution: as many channels as pixels of the larger image, each put into its place.

Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network,
CVPR 2016, equation 4. Channels of one place lie together (CRD, as torch has it) or apart (DCR, as TensorFlow): a matter
of the convolution's rows, and engines have kernels for the first.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.conv import Conv, Example

ORDERS = ("crd", "dcr")


class SubPixelConv2d(nn.Module):
    """x [N, Cin, H, W] to [N, out_channels, upscale H, upscale W]. `order`: of the weight's rows, as it was trained."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, upscale: int, *, order: str = "crd"
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"a kernel of {kernel_size} positions has no middle, and so does not keep the size")
        if order not in ORDERS:
            raise ValueError(f"channels become places in the order {' or '.join(ORDERS)}, not {order!r}")
        self.conv = nn.Conv2d(in_channels, out_channels * upscale**2, kernel_size, padding=kernel_size // 2)
        self.upscale, self.order = upscale, order

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self._crd(self.conv.weight), None if self.conv.bias is None else self._crd(self.conv.bias)
        return F.pixel_shuffle(F.conv2d(x, weight, bias, padding=self.conv.kernel_size[0] // 2), self.upscale)

    def _crd(self, rows: Tensor) -> Tensor:
        """`rows` [places and channels, …] with the places of a channel together."""
        if self.order == "crd":
            return rows
        return rows.reshape(self.upscale**2, -1, *rows.shape[1:]).transpose(0, 1).reshape(rows.shape)


def _examples() -> Iterator[Example]:
    """Both orders and factors, and the paper's network."""
    yield Example(SubPixelConv2d(3, 2, 3, 2, order="dcr"), {"x": (3, 5, 8)})
    yield Example(SubPixelConv2d(4, 3, 3, 3), {"x": (4, 6, 5)})
    espcn = nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.Tanh(), nn.Conv2d(8, 6, 3, padding=1), nn.Tanh())
    yield Example(_Named(espcn.append(SubPixelConv2d(6, 1, 3, 3, order="dcr"))), {"x": (1, 7, 9)})


class _Named(nn.Module):
    """A Sequential whose first nodes are the part's, too."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.layers(x)
        return made


PART = Conv(
    paper="ESPCN: Real-Time Single Image and Video Super-Resolution (CVPR 2016)",
    tier="T0",
    layers=(SubPixelConv2d,),
    examples=_examples,
    usual=lambda: Example(SubPixelConv2d(32, 3, 3, 3, order="dcr"), {"x": (32, 64, 64)}),
)
