"""ESPCN: Shi et al. 2016, https://arxiv.org/abs/1609.05158 (pixel shuffle), with a residual on the resized input."""

import torch.nn.functional as F
from torch import Tensor, nn

from tests.nets.seeded import seeded


class ESPCN(nn.Module):
    def __init__(self, scale: int, width: int) -> None:
        super().__init__()
        self.scale = scale
        self.conv1 = nn.Conv2d(1, width, 5, padding=2)
        self.conv2 = nn.Conv2d(width, width // 2, 3, padding=1)
        self.conv3 = nn.Conv2d(width // 2, scale**2, 3, padding=1)
        self.pixel_shuffle = nn.PixelShuffle(scale)

    def forward(self, x: Tensor) -> Tensor:
        detail = self.pixel_shuffle(self.conv3(self.conv2(self.conv1(x).tanh()).tanh()))
        wide = F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return (wide + detail).clamp(0.0, 1.0)


def net(scale: int = 3, width: int = 64) -> nn.Module:
    return seeded(ESPCN(scale, width))
