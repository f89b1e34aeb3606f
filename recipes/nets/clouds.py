"""Which body a cloud of points lies on, however it is turned: generated clouds on a ball, a box, a tube, a ring.

The networks' answers do not turn with the cloud: one works on places and orientations, one on harmonics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from convkit.compress.convs.gaunt import GauntTensorProduct
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
        self.blocks = nn.ModuleList(PonitaBlock(directions, channels, channels, layer_scale=1.0) for _ in range(2))
        self.head, self.count = nn.Linear(channels, 4), orientations

    def forward(self, positions: Tensor) -> Tensor:
        x = self.start.expand(positions.shape[0], positions.shape[1], self.count, -1)
        for block in self.blocks:
            x = block(x, positions)
        made: Tensor = self.head(x.mean((1, 2)))
        return made


class Harmonics(nn.Module):
    """What lies in which direction, as harmonics weighed by a network of the distance; products of these; and of all
    of them what does not turn with the cloud: the squares of each degree.
    """

    DEGREE = 2

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.radial = nn.Sequential(nn.Linear(1, channels), nn.GELU(), nn.Linear(channels, channels))
        self.first, self.second = (
            nn.ModuleList(nn.Linear(channels, channels, bias=False) for _ in range(self.DEGREE + 1)) for _ in range(2)
        )
        self.product = GauntTensorProduct(self.DEGREE, self.DEGREE, self.DEGREE)
        features = 2 * channels * (self.DEGREE + 1)
        self.norm = nn.BatchNorm1d(features)
        self.head = nn.Sequential(nn.Linear(features, 2 * channels), nn.GELU(), nn.Linear(2 * channels, 4))

    def forward(self, positions: Tensor) -> Tensor:
        apart = positions - positions.mean(1, keepdim=True)
        distance = apart.norm(dim=-1, keepdim=True)
        held = self.radial(distance).mT @ harmonics(apart / (distance + 1e-6)) / POINTS
        made = self.product(self._mixed(self.first, held), self._mixed(self.second, held))
        squares = [part.square().sum(-1) for whole in (held, made) for part in self._degrees(whole)]
        found: Tensor = self.head(self.norm(torch.cat(squares, 1)))
        return found

    def _degrees(self, x: Tensor) -> list[Tensor]:
        return [x[..., degree**2 : (degree + 1) ** 2] for degree in range(self.DEGREE + 1)]

    def _mixed(self, layers: nn.ModuleList, x: Tensor) -> Tensor:
        """Channels mixed within each degree."""
        parts = zip(layers, self._degrees(x), strict=True)
        return torch.cat([layer(part.mT).mT for layer, part in parts], -1)


def harmonics(unit: Tensor) -> Tensor:
    """Real orthonormal spherical harmonics of up to degree two of unit vectors […, 3]: […, 9]."""
    x, y, z = unit.unbind(-1)
    flat = torch.full_like(x, 0.5 / torch.pi**0.5)
    one, two = (3 / (4 * torch.pi)) ** 0.5, (15 / (4 * torch.pi)) ** 0.5
    up = (2 * z * z - x * x - y * y) / (2 * 3**0.5)
    around = (x * x - y * y) / 2
    return torch.stack((flat, one * y, one * z, one * x,
                        two * x * y, two * y * z, two * up, two * x * z, two * around), -1)  # fmt: skip


def products(channels: int = 16) -> nn.Module:
    """Gaunt tensor products; the input is called `input`."""
    return nn.Sequential(Harmonics(channels))


def build(channels: int = 16, orientations: int = 8) -> nn.Module:
    """The network, whose input is called `input`."""
    return nn.Sequential(Bodies(channels, orientations))
