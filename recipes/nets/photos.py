"""Photos at half their size, and ESPCN that doubles them: all convolutions on the small image, a sub-pixel one last.

Patches are those of the photos that scikit-image carries.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from convkit.compress import package
from convkit.compress.convs.sub_pixel_conv import SubPixelConv2d

if TYPE_CHECKING:
    import numpy as np

HELD = ("coffee.png", "chelsea.png")
LEARNT = ("astronaut.png", "rocket.jpg", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "retina.jpg")
PATCH, EACH = 48, 250


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
