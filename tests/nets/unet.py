"""U-Net: Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597 (transposed convs, skips that are padded to fit)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.nets.seeded import seeded


class Double(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for i in range(2):
            layers += [
                nn.Conv2d(outputs if i else inputs, outputs, 3, padding=1),
                nn.BatchNorm2d(outputs),
                nn.ReLU(True),
            ]
        super().__init__(*layers)


class Up(nn.Module):
    """Twice the size, padded to the skip's, joined with it."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.up, self.conv = nn.ConvTranspose2d(inputs, inputs // 2, 2, 2), Double(inputs, inputs // 2)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.up(x)
        height, width = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
        x = F.pad(x, [width // 2, width - width // 2, height // 2, height - height // 2])
        return self.conv(torch.cat([skip, x], dim=1))


class UNet(nn.Module):
    def __init__(self, width: int, depth: int, classes: int) -> None:
        super().__init__()
        self.inc = Double(3, width)
        self.downs = nn.ModuleList([Double(width * 2**i, width * 2 ** (i + 1)) for i in range(depth)])
        self.ups = nn.ModuleList([Up(width * 2 ** (i + 1)) for i in reversed(range(depth))])
        self.outc = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.inc(x)]
        for down in self.downs:
            skips.append(down(F.max_pool2d(skips[-1], 2)))
        x = skips.pop()
        for up in self.ups:
            x = up(x, skips.pop())
        return self.outc(x)


def net(width: int = 64, depth: int = 4, classes: int = 2) -> nn.Module:
    return seeded(UNet(width, depth, classes))
