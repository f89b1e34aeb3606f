"""Fashion-MNIST and CIFAR-10 as the networks of `cifar_networks` take them."""

from pathlib import Path

import numpy as np

from tests.bench import cifar, compressed, fashion


def save(name: str, most: int, output: Path) -> None:
    """train.npz, of the first `most` images, and test.npz, of all, in the folder `output`."""
    for part in ("train", "test"):
        images, labels = _fashion(part) if name == "fashion" else _cifar(part)
        kept = most if part == "train" else None
        np.savez(output / f"{part}.npz", input=images[:kept], labels=labels[:kept])


def _fashion(part: str) -> tuple[np.ndarray, np.ndarray]:
    return fashion.part("train" if part == "train" else "t10k")


def _cifar(part: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = cifar.training() if part == "train" else cifar.images()
    return compressed.planes(images), labels
