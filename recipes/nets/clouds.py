"""Which body a cloud of points lies on, however it is turned: generated clouds on a ball, a box, a tube, a ring.

The network works on places and orientations; its answer does not turn with the cloud.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from convkit.compress.convs.ponita import PonitaBlock

if TYPE_CHECKING:
    import numpy as np

POINTS, NOISE = 24, 0.05


def training() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """({input: [1600, 24, 3]}, bodies)."""
    return clouds(1600, seed=0)


def validation() -> tuple[dict[str, np.ndarray], np.ndarray]:
    return clouds(400, seed=1)


def clouds(count: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Points on the surface of a body, turned at random, with noise."""
    import numpy as np

    draw = np.random.default_rng(seed)
    bodies, found = draw.integers(4, size=count), np.empty((count, POINTS, 3), np.float32)
    for number, body in enumerate(bodies):
        turn, _ = np.linalg.qr(draw.normal(size=(3, 3)))
        found[number] = _on(int(body), draw) @ turn + draw.normal(0, NOISE, (POINTS, 3))
    return {"input": found}, bodies


def _on(body: int, draw: np.random.Generator) -> np.ndarray:
    """Points on a ball, a box, a tube, a ring, each about one across."""
    import numpy as np

    angle, high = draw.uniform(0, 2 * np.pi, POINTS), draw.uniform(-1, 1, POINTS)
    if body == 0:
        points = draw.normal(size=(POINTS, 3))
        return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True))
    if body == 1:
        points = draw.uniform(-1, 1, (POINTS, 3))
        points[np.arange(POINTS), draw.integers(3, size=POINTS)] = np.sign(high)
        return points
    wide = 0.6 if body == 2 else 1.0  # noqa: PLR2004 - tube
    return np.stack((wide * np.cos(angle), wide * np.sin(angle), high * (1.4 if body == 2 else 0.1)), 1)  # noqa: PLR2004


class Bodies(nn.Module):
    """PONITA's blocks on points without features of their own, and the mean over points and orientations."""

    def __init__(self, channels: int, orientations: int) -> None:
        super().__init__()
        turns = torch.arange(orientations) * (torch.pi * (3 - 5**0.5))
        high = 1 - 2 * (torch.arange(orientations) + 0.5) / orientations
        flat = (1 - high.square()).sqrt()
        directions = torch.stack((flat * turns.cos(), flat * turns.sin(), high), 1)
        self.start = nn.Parameter(torch.ones(channels))
        blocks = [PonitaBlock(directions, channels, channels) for _ in range(2)]
        for block in blocks:
            nn.init.ones_(block.layer_scale)
        self.blocks = nn.ModuleList(blocks)
        self.head, self.count = nn.Linear(channels, 4), orientations

    def forward(self, positions: Tensor) -> Tensor:
        x = self.start.expand(positions.shape[0], positions.shape[1], self.count, -1)
        for block in self.blocks:
            x = block(x, positions)
        made: Tensor = self.head(x.mean((1, 2)))
        return made


def build(channels: int = 16, orientations: int = 8) -> nn.Module:
    """The network, whose input is called `input`."""
    return nn.Sequential(Bodies(channels, orientations))
