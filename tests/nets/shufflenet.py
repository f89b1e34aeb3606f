"""ShuffleNetV2 x1.0: Ma et al. 2018, https://arxiv.org/abs/1807.11164 (chunk, concat, channel shuffle)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tests.nets.seeded import seeded


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.size()
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def pointwise(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def depthwise(channels: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False), nn.BatchNorm2d(channels)]


class Unit(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, half = stride, outputs // 2
        self.branch1 = (
            nn.Sequential(*depthwise(inputs, 2), *pointwise(inputs, half)) if stride == 2 else nn.Sequential()
        )
        first = pointwise(inputs if stride == 2 else half, half)
        self.branch2 = nn.Sequential(*first, *depthwise(half, stride), *pointwise(half, half))

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            kept, changed = x.chunk(2, dim=1)
            return channel_shuffle(torch.cat((kept, self.branch2(changed)), dim=1), 2)
        return channel_shuffle(torch.cat((self.branch1(x), self.branch2(x)), dim=1), 2)


class ShuffleNet(nn.Module):
    def __init__(self, repeats: Sequence[int], channels: Sequence[int], classes: int) -> None:
        super().__init__()
        inputs, *stages, last = channels
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, inputs, 3, 2, 1, bias=False), nn.BatchNorm2d(inputs), nn.ReLU(inplace=True)
        )
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        for stage, (count, outputs) in enumerate(zip(repeats, stages, strict=True)):
            units = [Unit(inputs if i == 0 else outputs, outputs, 1 if i else 2) for i in range(count)]
            self.add_module(f"stage{stage + 2}", nn.Sequential(*units))
            inputs = outputs
        self.conv5, self.fc = nn.Sequential(*pointwise(inputs, last)), nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage4(self.stage3(self.stage2(self.maxpool(self.conv1(x)))))
        return self.fc(self.conv5(x).mean([2, 3]))


def net(
    repeats: Sequence[int] = (4, 8, 4), channels: Sequence[int] = (24, 116, 232, 464, 1024), classes: int = 1000
) -> nn.Module:
    return seeded(ShuffleNet(repeats, channels, classes))
