"""Which of six ways something moves: generated blocks of voxels over three frames, among voxels that come and go; and
Flow4D's convolutions over space and time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from convkit.compress.convs.flow4d import STDB

if TYPE_CHECKING:
    import numpy as np

SIDE, FRAMES, NOISE = 8, 3, 0.02
"""Voxels along an edge, frames, and the part of the voxels that is filled by chance."""


def training() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """({input: [1200, 1, 8, 8, 8, 3]}, ways)."""
    return moving(1200, seed=0)


def validation() -> tuple[dict[str, np.ndarray], np.ndarray]:
    return moving(300, seed=1)


def moving(count: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Blocks of 2 or 3 voxels a side that move by one a frame, along one of three axes, to or fro."""
    import numpy as np

    draw = np.random.default_rng(seed)
    ways = draw.integers(6, size=count)
    space = (draw.random((count, 1, SIDE, SIDE, SIDE, FRAMES)) < NOISE).astype(np.float32)
    for number, way in enumerate(ways):
        size, step = int(draw.integers(2, 4)), np.zeros(3, int)
        step[way // 2] = 1 if way % 2 else -1
        begin = draw.integers(FRAMES - 1, SIDE - size - FRAMES + 2, size=3)
        for frame in range(FRAMES):
            x, y, z = begin + frame * step
            space[number, 0, x : x + size, y : y + size, z : z + size, frame] = 1
    return {"input": space}, ways


class Moving(nn.Module):
    """Two of Flow4D's blocks, and the mean over the voxels that are filled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList((STDB(1, channels), STDB(channels, channels)))
        self.head = nn.Linear(channels * FRAMES, 6)

    def forward(self, voxels: Tensor) -> Tensor:
        occupied = (voxels > 0).to(voxels.dtype)
        made = voxels
        for block in self.blocks:
            made = block(made, occupied)
        pooled = made.sum((2, 3, 4)) / torch.clamp(occupied.sum((2, 3, 4)), min=1)
        found: Tensor = self.head(pooled.flatten(1))
        return found


def build(channels: int = 12) -> nn.Module:
    """The network, whose input is called `input`."""
    return nn.Sequential(Moving(channels))
