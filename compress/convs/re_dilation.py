"""Re-dilation and dispersed kernels: a trained convolution made to see a larger image as it saw the small one.

He et al., ScaleCrafter: Tuning-free Higher-Resolution Visual Generation with Diffusion Models, ICLR 2024, eqs. 2-5.
Whole factors are an ordinary convolution with another dilation, dispersed kernels one with a larger kernel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.adopting import Adopting, State, renamed
from convkit.compress.conv import Conv, Example


class ReDilatedConv2d(nn.Module):
    """x [N, C, H, W] through the weights of `conv`, `factor` times as far apart: [N, Cout, H // stride, W // stride].

    It is padded for that size, whatever `conv`'s own padding. A factor that is not whole is rounded up, one below 1 to
    1, and the image widened by as much around the convolution. Of an odd edge a stride makes one position more, which
    is resized away as in the reference implementation; that pads rows as columns, here each has a kernel's own edge.
    """

    def __init__(self, conv: nn.Conv2d, factor: float) -> None:
        super().__init__()
        if factor <= 0:
            raise ValueError(f"kernels are spread by a factor of more than 0, not {factor:g}")
        _check(conv)
        if any(size % 2 == 0 for size in conv.kernel_size):
            raise ValueError("a convolution is spread where it has an odd kernel")
        self.weight, self.bias, self.groups, self.stride = conv.weight, conv.bias, conv.groups, conv.stride
        self.factor, self.dilation = factor, math.ceil(factor)

    def forward(self, x: Tensor) -> Tensor:
        size = [edge // step for edge, step in zip(x.shape[2:], self.stride, strict=True)]
        whole = self.dilation == self.factor
        if not whole:
            widening = self.dilation / self.factor
            x = F.interpolate(x, [round(edge * widening) for edge in x.shape[2:]], mode="bilinear")
        padding = [edge // 2 * self.dilation for edge in self.weight.shape[2:]]
        x = F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)
        return x if whole and max(self.stride) == 1 else F.interpolate(x, size, mode="bilinear")


class DispersedConv2d(Adopting):
    """x [N, C, H, W] through the weights of `conv` [Cout, Cin, k, k], dispersed by the matrix `dispersal` [k'², k²].

    The reference implementation has the matrix in a file of its own, `inflation_transform`: where a state is without
    it, the one that the layer was made with stays.
    """

    dispersal: Tensor

    def __init__(self, conv: nn.Conv2d, dispersal: Tensor) -> None:
        super().__init__()
        _check(conv)
        if max(conv.stride) > 1:
            raise ValueError("a convolution is dispersed where it has a stride of 1")
        edge = math.isqrt(dispersal.shape[0])
        taps = math.prod(conv.kernel_size)
        if edge * edge != dispersal.shape[0] or edge % 2 == 0 or dispersal.shape[1] != taps:
            raise ValueError(f"a kernel of {taps} is dispersed by [odd², {taps}], not {list(dispersal.shape)}")
        self.weight, self.bias, self.groups, self.edge = conv.weight, conv.bias, conv.groups, edge
        self.register_buffer("dispersal", dispersal)

    def own(self, state: State) -> State:
        found = renamed(state, {r"inflation_transform$": "dispersal"})
        return found if self.dispersal.is_meta else {"dispersal": self.dispersal} | found

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.flatten(2) @ self.dispersal.T
        kernel = flat.reshape(*flat.shape[:2], self.edge, self.edge)
        return F.conv2d(x, kernel, self.bias, padding=self.edge // 2, groups=self.groups)


def _check(conv: nn.Conv2d) -> None:
    if any(step != 1 for step in conv.dilation) or conv.padding_mode != "zeros":
        raise ValueError("a convolution is spread where it has a dilation of 1 and is padded with zeros")


def _examples() -> Iterator[Example]:
    """Whole factors and others, groups, strides, images that are not square."""
    yield Example(ReDilatedConv2d(nn.Conv2d(3, 5, 3), 2), {"x": (3, 9, 12)})
    yield Example(ReDilatedConv2d(nn.Conv2d(4, 6, 3, groups=2), 1.5), {"x": (4, 9, 12)})
    yield Example(ReDilatedConv2d(nn.Conv2d(2, 3, (1, 5), bias=False), 2.5), {"x": (2, 10, 8)})
    yield Example(ReDilatedConv2d(nn.Conv2d(3, 5, 3, stride=2), 2), {"x": (3, 9, 12)})
    yield Example(DispersedConv2d(nn.Conv2d(4, 6, 3, groups=2), torch.randn(25, 9)), {"x": (4, 7, 8)})


PART = Conv(
    paper="ScaleCrafter: Tuning-free Higher-Resolution Visual Generation (ICLR 2024)",
    tier="T0",
    layers=(ReDilatedConv2d, DispersedConv2d),
    examples=_examples,
    usual=lambda: Example(ReDilatedConv2d(nn.Conv2d(64, 64, 3), 2), {"x": (64, 32, 32)}),
)
