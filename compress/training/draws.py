"""What chance decides in a training, drawn so that one which was killed and goes on draws the same."""

from __future__ import annotations

import random

import numpy as np
import torch


def at(seed: int, place: float) -> torch.Generator:
    """Of that place in training alone, in epochs."""
    return torch.Generator().manual_seed(hash((seed, round(place * 1e6))) % 2**63)


def begin(seed: int, epoch: int) -> None:
    """Seed, for the epoch alone, what is drawn outside of the loop: by Dropout, and by a user's own loader and loss."""
    own = (seed + epoch) % 2**32
    torch.manual_seed(own)
    random.seed(own)
    np.random.seed(own)  # noqa: NPY002 - what a user's code may draw from
