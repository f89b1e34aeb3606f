"""The wave equation on a square: where a wave that starts at rest is a while later, exactly, in the cosines that it is
made of; and a network that learns it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from convkit.compress.convs.transform_once import TransformOnce

if TYPE_CHECKING:
    import numpy as np

SIDE, MODES, TIME = 32, 10, 0.35
"""Places along an edge, cosines along it that start, and how long they travel at speed one."""


def training() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """({input: [600, 1, 32, 32]}, ends of the same shape)."""
    return travels(600, seed=0)


def validation() -> tuple[dict[str, np.ndarray], np.ndarray]:
    return travels(100, seed=1)


def travels(count: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Random smooth waves between walls, and what they are after TIME: mode (i, j) is cos(pi sqrt(i² + j²) t) of it."""
    import numpy as np

    draw, order = np.random.default_rng(seed), np.arange(MODES)
    place = (np.arange(SIDE) + 0.5) / SIDE
    cosines = np.cos(np.pi * order[:, None] * place)
    speed = np.pi * np.hypot(order[:, None], order)
    modes = draw.normal(size=(count, MODES, MODES)) / (1 + order[:, None] ** 2 + order**2)
    start, end = (
        np.einsum("nij,ih,jw->nhw", each, cosines, cosines)[:, None] for each in (modes, modes * np.cos(speed * TIME))
    )
    return {"input": start.astype(np.float32)}, end.astype(np.float32)


def build(modes: int = 12, width: int = 16) -> nn.Module:
    """Transform-Once: three layers between one cosine transform and its inverse."""
    return nn.Sequential(TransformOnce(modes, width, 1, 1, nlayers=3, act="gelu"))
