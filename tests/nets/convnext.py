"""ConvNeXt-Tiny: Liu et al. 2022, https://arxiv.org/abs/2201.03545 (layer norm, GELU, layer scale)."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tests.nets.seeded import seeded


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of [N, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.act = nn.GELU()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x).permute(0, 2, 3, 1)
        y = self.gamma * self.pwconv2(self.act(self.pwconv1(self.norm(y))))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    def __init__(self, depths: Sequence[int], widths: Sequence[int], classes: int) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, 4), ChannelNorm(widths[0], eps=1e-6))
        self.downsample_layers = nn.ModuleList([stem])
        for inputs, outputs in itertools.pairwise(widths):
            down = nn.Sequential(ChannelNorm(inputs, eps=1e-6), nn.Conv2d(inputs, outputs, 2, 2))
            self.downsample_layers.append(down)
        pairs = zip(depths, widths, strict=True)
        self.stages = nn.ModuleList([nn.Sequential(*(Block(width) for _ in range(depth))) for depth, width in pairs])
        self.norm, self.head = nn.LayerNorm(widths[-1], eps=1e-6), nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        for down, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(down(x))
        return self.head(self.norm(x.mean([-2, -1])))


def net(width: int = 96, depths: Sequence[int] = (3, 3, 9, 3), classes: int = 1000) -> nn.Module:
    return seeded(ConvNeXt(depths, [width, 2 * width, 4 * width, 8 * width], classes))
