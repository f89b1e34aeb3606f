"""Small networks for CIFAR-10, clothes and a watch. The module needs torch alone: peers read it.

VGG's plan (Simonyan and Zisserman, ICLR 2015) at an eighth of its widths, and ResNet-20 (He et al., CVPR 2016).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

MEAN, SPREAD = 120.7, 63.0
"""Of all channels; near enough to each one's."""


class VGG(nn.Sequential):
    """Images [N, 3, 32, 32] to scores of ten classes."""

    def __init__(self, widths: tuple[int, ...] = (32, 32, 0, 64, 64, 0, 128, 128, 0)) -> None:
        layers: list[nn.Module] = []
        read = 3
        for made in widths:
            if not made:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(read, made, 3, padding=1, bias=False), nn.BatchNorm2d(made), nn.ReLU()]
            read = made
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(read, 10))


class _Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, read: int, made: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(read, made, 3, stride, 1, bias=False), nn.BatchNorm2d(made), nn.ReLU(),
            nn.Conv2d(made, made, 3, 1, 1, bias=False), nn.BatchNorm2d(made),
        )  # fmt: skip
        same = read == made and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(
            nn.Conv2d(read, made, 1, stride, bias=False), nn.BatchNorm2d(made)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Sequential):
    """Images [N, 3, 32, 32] to scores of ten classes; three stages of `blocks`."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64), blocks: int = 3) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(3, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(),
        ]  # fmt: skip
        for read, made in itertools.pairwise((widths[0], *widths)):
            stride = 1 if read == made else 2
            layers += [_Block(read if at == 0 else made, made, stride if at == 0 else 1) for at in range(blocks)]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))


def short() -> nn.Module:
    """A ResNet whose stages have blocks to leave out, for training that takes minutes."""
    return ResNet((16, 32, 64), 2)


def clothes() -> nn.Module:
    """The same for Fashion-MNIST's grey images, half as wide."""
    network = ResNet((8, 16, 32), 2)
    network[0] = nn.Conv2d(1, 8, 3, padding=1, bias=False)
    return network


def wardrobe() -> nn.Module:
    """A VGG for Fashion-MNIST, half as wide as that for CIFAR-10."""
    network = VGG((16, 16, 0, 32, 32, 0, 64, 64, 0))
    network[0] = nn.Conv2d(1, 16, 3, padding=1, bias=False)
    return network


def wrist() -> nn.Module:
    """A 1-D network for series of a watch's six sensors."""

    def stage(read: int, made: int, size: int) -> list[nn.Module]:
        conv = nn.Conv1d(read, made, size, padding=size // 2, bias=False)
        return [conv, nn.BatchNorm1d(made), nn.ReLU(), nn.MaxPool1d(2)]

    stages = [*stage(6, 32, 7), *stage(32, 64, 5), *stage(64, 64, 5), *stage(64, 64, 5)]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 7))


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {"vgg": VGG, "resnet": ResNet}
