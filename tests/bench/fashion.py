"""Fashion-MNIST (Xiao et al., 2017): 60,000 grey images of clothes to learn from and 10,000 to be scored on."""

import gzip
from pathlib import Path

import numpy as np

from tests.bench import packages

MEAN, SPREAD = 73.0, 90.0
"""Of all pixels."""
_HEADER = {"images": 16, "labels": 8}
"""Bytes in front of the values."""


def part(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images float32 [N, 1, 28, 28] and classes int64 [N] of "train" or "t10k"."""
    folder = packages.unpacked(packages.FASHION) / "usr/share/datasets/fashion-mnist"
    images = _values(folder / f"{name}-images-idx3-ubyte.gz", "images").reshape(-1, 1, 28, 28)
    labels = _values(folder / f"{name}-labels-idx1-ubyte.gz", "labels")
    return (images.astype(np.float32) - np.float32(MEAN)) / np.float32(SPREAD), labels.astype(np.int64)


def _values(file: Path, kind: str) -> np.ndarray:
    with gzip.open(file) as stream:
        return np.frombuffer(stream.read(), np.uint8, offset=_HEADER[kind])
