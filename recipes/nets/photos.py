"""Photos that scikit-image carries: at half their size, and ESPCN that doubles them; at several exposures, and tables
that fuse them; one as a function of places, and a network that is this function.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from convkit.compress import package
from convkit.compress.convs.lut import SIZE, MefLut
from convkit.compress.convs.quantized_coordinates import QuantizedCoordinates
from convkit.compress.convs.sub_pixel_conv import SubPixelConv2d

if TYPE_CHECKING:
    import numpy as np

HELD = ("coffee.png", "chelsea.png")
LEARNT = ("astronaut.png", "rocket.jpg", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "retina.jpg")
PATCH, EACH = 48, 250
EXPOSURES, NOISE = (0.4, 0.8, 2.0), 0.02
PLACES, PICTURE = 96, "camera.png"
_HELD_PIXELS = PLACES**2 // 5


def training() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """({input: [N, 1, 24, 24]}, patches [N, 1, 48, 48]), grey, from 0 to 1."""
    return patches(LEARNT, EACH)


def validation() -> tuple[dict[str, np.ndarray], np.ndarray]:
    return patches(HELD, 64)


def patches(names: tuple[str, ...], each: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Patches of photos at random places, and what bicubic halving leaves of them."""
    import numpy as np
    from PIL import Image

    draw, large, small = np.random.default_rng(0), list[np.ndarray](), list[np.ndarray]()
    folder = Path(package.resolve("pkg://skimage/data"))
    for name in names:
        if not (folder / name).exists():
            continue
        photo = Image.open(folder / name).convert("L")
        for _ in range(each):
            left, top = (int(draw.integers(size - PATCH)) for size in photo.size)
            patch = photo.crop((left, top, left + PATCH, top + PATCH))
            large.append(np.asarray(patch, np.float32)[None] / 255)
            halved = patch.resize((PATCH // 2, PATCH // 2), Image.Resampling.BICUBIC)
            small.append(np.asarray(halved, np.float32)[None] / 255)
    return {"input": np.stack(small)}, np.stack(large)


def build(channels: int = 32) -> nn.Module:
    """ESPCN with a factor of two (Shi et al., CVPR 2016)."""
    return nn.Sequential(
        nn.Conv2d(1, 2 * channels, 5, padding=2), nn.ReLU(),
        nn.Conv2d(2 * channels, channels, 3, padding=1), nn.ReLU(),
        SubPixelConv2d(channels, 1, 3, 2),
    )  # fmt: skip


def exposures() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """({input: [N, 3, 48, 48]}, patches [N, 1, 48, 48]): each patch taken darker, dark and too bright, with noise."""
    return _exposed(LEARNT, EACH)


def held_exposures() -> tuple[dict[str, np.ndarray], np.ndarray]:
    return _exposed(HELD, 64)


def _exposed(names: tuple[str, ...], each: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    import numpy as np

    _, large = patches(names, each)
    taken = large * np.array(EXPOSURES, np.float32)[:, None, None]
    taken = taken + np.random.default_rng(1).normal(0, NOISE, taken.shape).astype(np.float32)
    return {"input": taken.clip(0, 1)}, large


class Fusion(nn.Module):
    """Tables that weigh exposures, learnt from photos, and two convolutions that clean what they fuse."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.tables = MefLut(torch.full((len(EXPOSURES), SIZE), 1 / len(EXPOSURES)), shrunk=2)
        self.first, self.last = nn.Conv2d(1, channels, 3, padding=1), nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, frames: Tensor) -> Tensor:
        fused = self.tables(frames)
        made: Tensor = fused + self.last(self.first(fused).relu())
        return made


def fusion(channels: int = 16) -> nn.Module:
    """MEFLUT's fusion; the input is called `input`."""
    return nn.Sequential(Fusion(channels))


def places() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """({input: [7373, 2]}, brightness [7373, 1]): four of five pixels of a photo, by where they lie from -1 to 1."""
    return _pixels(slice(None, -_HELD_PIXELS))


def held_places() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The others."""
    return _pixels(slice(-_HELD_PIXELS, None))


def _pixels(kept: slice) -> tuple[dict[str, np.ndarray], np.ndarray]:
    import numpy as np
    from PIL import Image

    photo = Image.open(Path(package.resolve("pkg://skimage/data")) / PICTURE).convert("L")
    values = np.asarray(photo.resize((PLACES, PLACES), Image.Resampling.BICUBIC), np.float32) / 255
    line = (2 * np.arange(PLACES, dtype=np.float32) + 1) / PLACES - 1
    where = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    order = np.random.default_rng(0).permutation(PLACES**2)[kept]
    return {"input": where[order]}, values.reshape(-1, 1)[order]


class Picture(nn.Module):
    """places [N, 2] to brightness [N, 1], by waves of places that a fine grid holds."""

    def __init__(self, hidden: int, octaves: int) -> None:
        super().__init__()
        self.grid, self.octaves = QuantizedCoordinates(bound=1.0), octaves
        widths = (4 * octaves, hidden, hidden, hidden)
        body = [step for read, made in itertools.pairwise(widths) for step in (nn.Linear(read, made), nn.ReLU())]
        self.body = nn.Sequential(*body, nn.Linear(hidden, 1))

    def forward(self, where: Tensor) -> Tensor:
        place = self.grid(where)
        turns = torch.cat([place * (torch.pi * 2.0**octave / 2) for octave in range(self.octaves)], -1)
        made: Tensor = self.body(torch.cat((turns.sin(), turns.cos()), -1))
        return made


def picture(hidden: int = 128, octaves: int = 5) -> nn.Module:
    """A photo as a function of places (CQ-NIR)."""
    return nn.Sequential(Picture(hidden, octaves))
