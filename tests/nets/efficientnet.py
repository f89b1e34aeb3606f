"""EfficientNet-B0: Tan and Le 2019, https://arxiv.org/abs/1905.11946 (SiLU, squeeze-excitation)."""

import torch
from torch import Tensor, nn

from tests.nets.seeded import seeded

SETTING = (
    (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1),
)  # fmt: skip
"""Expansion, kernel, stride, channels, blocks of each stage."""


class ConvBn(nn.Sequential):
    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True
    ) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs), *([nn.SiLU(inplace=True)] if act else []))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = nn.functional.silu(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.expand(scale))


class MBConv(nn.Module):
    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.expand = ConvBn(inputs, hidden, 1) if expansion > 1 else nn.Identity()
        self.depthwise = ConvBn(hidden, hidden, kernel, stride, hidden)
        self.squeeze = SqueezeExcite(hidden, max(1, inputs // 4))
        self.project = ConvBn(hidden, outputs, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.squeeze(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


class EfficientNet(nn.Module):
    def __init__(self, width: float, classes: int) -> None:
        super().__init__()
        inputs = round(32 * width)
        self.stem = ConvBn(3, inputs, 3, 2)
        stages: list[nn.Module] = []
        for expansion, kernel, stride, channels, blocks in SETTING:
            for i in range(blocks):
                outputs = round(channels * width)
                stages.append(MBConv(inputs, outputs, expansion, kernel, 1 if i else stride))
                inputs = outputs
        self.blocks = nn.Sequential(*stages)
        self.head = ConvBn(inputs, 4 * inputs, 1)
        self.dropout, self.classifier = nn.Dropout(0.2), nn.Linear(4 * inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.head(self.blocks(self.stem(x)))
        return self.classifier(self.dropout(features.mean([2, 3])))


def net(width: float = 1.0, classes: int = 1000) -> nn.Module:
    return seeded(EfficientNet(width, classes))
