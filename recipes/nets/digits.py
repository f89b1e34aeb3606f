"""Handwritten digits, 8 x 8 grey values raised to 16 x 16, and a small network around novel convolutions.

The images are those of the UCI's optical recognition of handwritten digits, which scikit-learn carries: 1797 images, of
which the last 360 are by other writers.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress import package
from convkit.compress.convs.coordinate_maps import CoordinateMaps
from convkit.compress.convs.cross_d import CrossDConv2d
from convkit.compress.convs.dcls import Dcls2d
from convkit.compress.convs.deform import DeformBlock
from convkit.compress.convs.delays import DelayedLayer
from convkit.compress.convs.eca import ECA
from convkit.compress.convs.ela import ELA
from convkit.compress.convs.evonorm import EvoNorm2dS0
from convkit.compress.convs.hyperzzw import HyperGlobal, HyperLocal
from convkit.compress.convs.inception_dw import InceptionDWConv2d
from convkit.compress.convs.lie_group import GroupConv2d, GroupPool, LiftConv2d
from convkit.compress.convs.phc import PHConv2d
from convkit.compress.convs.poincare import PoincareConvolution2d
from convkit.compress.convs.re_dilation import ReDilatedConv2d
from convkit.compress.convs.sepc import PyramidConv
from convkit.compress.convs.spark import SparseBatchNorm2d, SparseConv2d, SparseMaxPool2d
from convkit.compress.convs.unireplknet import UniRepLKNetBlock

if TYPE_CHECKING:
    import numpy as np

HELD = 360
"""Images of other writers."""
_FILE = "pkg://sklearn/datasets/data/digits.csv.gz"
_SIDE, _WHITE, _INK = 8, 16.0, 0.3


def training() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """({input: [1437, 1, 16, 16]}, digits)."""
    return _images(slice(None, -HELD))


def validation() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Those of other writers."""
    return _images(slice(-HELD, None))


def enlarged() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Those of other writers at twice the size: {input: [360, 1, 32, 32]}."""
    return _doubled(*validation())


def enlarged_training() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Those to learn from, so large."""
    return _doubled(*training())


def _doubled(images: dict[str, np.ndarray], digits: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    return {"input": images["input"].repeat(2, axis=2).repeat(2, axis=3)}, digits


def _images(rows: slice) -> tuple[dict[str, np.ndarray], np.ndarray]:
    import numpy as np

    with gzip.open(package.resolve(_FILE), "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)[rows]
    images = table[:, :-1].reshape(-1, 1, _SIDE, _SIDE) / _WHITE
    return {"input": images.repeat(2, axis=2).repeat(2, axis=3)}, table[:, -1].astype(np.int64)


class Block(nn.Module):
    """x + what a layer and a pointwise convolution make of it."""

    def __init__(self, layer: nn.Module, channels: int) -> None:
        super().__init__()
        self.layer, self.norm = layer, nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = x + self.pointwise(self.norm(self.layer(x)).relu())
        return made


def _gated(gate: nn.Module, channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, groups=channels), gate)


class Pyramid(nn.Module):
    """The image, half of it and a quarter, convolved with each other, and classes of all three."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.levels = nn.ModuleList(PyramidConv(channels, channels, iBN=True) for _ in range(2))
        self.head = nn.Linear(3 * channels, 10)

    def forward(self, image: Tensor) -> Tensor:
        fine = self.stem(image).relu()
        half = F.max_pool2d(fine, 2)
        levels = [fine, half, F.max_pool2d(half, 2)]
        for layer in self.levels:
            levels = layer(levels)
        made: Tensor = self.head(torch.cat([level.mean((2, 3)) for level in levels], 1))
        return made


class Sparse(nn.Module):
    """Convolutions of the patches that hold ink alone."""

    def __init__(self, channels: int, patch: int = 4) -> None:
        super().__init__()
        self.first, self.second = (SparseConv2d(read, channels, 3, padding=1) for read in (1, channels))
        self.norms = nn.ModuleList(SparseBatchNorm2d(channels) for _ in range(2))
        self.pool, self.head, self.patch = SparseMaxPool2d(2), nn.Linear(4 * channels, 10), patch

    def forward(self, image: Tensor) -> Tensor:
        active = (F.max_pool2d(image, self.patch) > 0).to(image.dtype)
        hidden = self.pool(self.norms[0](self.first(image, active), active).relu(), active)
        hidden = self.norms[1](self.second(hidden, active), active).relu()
        made: Tensor = self.head(F.adaptive_avg_pool2d(hidden, 2).flatten(1))
        return made


class Spiking(nn.Module):
    """Columns of an image one after another: a neuron fires for each row where there is ink, others behind it."""

    def __init__(self, hidden: int, delays: int) -> None:
        super().__init__()
        self.hidden = DelayedLayer(2 * _SIDE, hidden, delays, tau=2.0)
        self.last = DelayedLayer(hidden, 10, delays, tau=4.0, fires=False)

    def forward(self, image: Tensor) -> Tensor:
        made: Tensor = self.last(self.hidden((image.squeeze(1) > _INK).to(image.dtype))).mean(-1)
        return made


class Hyper(nn.Module):
    """Kernels that networks of coordinates make: some as large as the image, some that depend on it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.wide, self.near = HyperGlobal(channels, 2 * _SIDE), HyperLocal(channels, 3)
        self.norm, self.mixer = nn.GroupNorm(2, 2 * channels), nn.Conv2d(2 * channels, channels, 1)
        self.head = nn.Linear(4 * channels, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image).relu()
        x = x + self.mixer(self.norm(torch.cat((self.wide(x), self.near(x)), 1)).relu())
        made: Tensor = self.head(F.adaptive_avg_pool2d(x.relu(), 2).flatten(1))
        return made


LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "coordinate_maps": lambda c: nn.Sequential(CoordinateMaps(), nn.Conv2d(c + 2, c, 3, padding=1)),
    "cross_d": lambda c: CrossDConv2d(c, c, 3),
    "dcls": lambda c: Dcls2d(c, c, 12, dilated_kernel_size=7, padding=3, groups=c),
    "deform": lambda c: DeformBlock(c, c, bound=4.0, depthwise=True),
    "eca": lambda c: _gated(ECA(3), c),
    "ela": lambda c: _gated(ELA(c), c),
    "evonorm": lambda c: _gated(EvoNorm2dS0(c, c // 8), c),
    "inception_dw": lambda c: InceptionDWConv2d(c, band_kernel_size=7),
    "phc": lambda c: PHConv2d(4, c, c, 3, padding=1),
    "poincare": lambda c: PoincareConvolution2d(c, c, (3, 3), padding=1),
    "unireplknet": lambda c: UniRepLKNetBlock(c, 7),
}


def build(layers: Sequence[str], channels: int = 32) -> nn.Module:
    """A stem, a block around each of the `layers`, the image halved behind the first, and ten classes."""
    stem = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
    blocks: list[nn.Module] = [Block(LAYERS[name](channels), channels) for name in layers]
    blocks.insert(1, nn.MaxPool2d(2))
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def pyramid(channels: int = 24) -> nn.Module:
    """SEPC's convolutions across scales, with a norm of all of them together."""
    return nn.Sequential(Pyramid(channels))


def sparse(channels: int = 32) -> nn.Module:
    """SparK's masked convolutions."""
    return nn.Sequential(Sparse(channels))


def rotations(turns: int = 4, channels: int = 8) -> nn.Module:
    """Convolutions over the plane's rotations by parts of a circle, and the largest of all."""
    angles = torch.arange(turns) * (2 * torch.pi / turns)
    samples = torch.stack((angles.cos(), -angles.sin(), angles.sin(), angles.cos()), -1).reshape(-1, 2, 2)
    return nn.Sequential(
        LiftConv2d(samples, 1, channels, 5, padding=2, kind="so2"),
        nn.BatchNorm2d(channels * turns), nn.ReLU(), nn.MaxPool2d(2),
        GroupConv2d(samples, channels, 2 * channels, 5, padding=2, kind="so2"),
        nn.BatchNorm2d(2 * channels * turns), nn.ReLU(),
        GroupPool(turns), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8 * channels, 10),
    )  # fmt: skip


def spikes(hidden: int = 64, delays: int = 7) -> nn.Module:
    """Spiking neurons with learnt delays."""
    return nn.Sequential(Spiking(hidden, delays))


def hyper(channels: int = 12) -> nn.Module:
    """HyperZZW's kernels; one image at a time."""
    return nn.Sequential(Hyper(channels))


def spread(factor: float = 1, channels: int = 24) -> nn.Module:
    """Convolutions whose taps are `factor` times as far apart: trained at one, it sees images as many times as large as
    it saw those.
    """

    def block(read: int, made: int, groups: int = 1) -> list[nn.Module]:
        conv = nn.Conv2d(read, made, 3, padding=1, groups=groups)
        return [ReDilatedConv2d(conv, factor), nn.BatchNorm2d(made), nn.ReLU()]

    body = [*block(1, channels), *block(channels, channels), *block(channels, 2 * channels)]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8 * channels, 10))
