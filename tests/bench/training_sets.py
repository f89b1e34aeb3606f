"""What the networks of `cifar_networks` are trained on: Fashion-MNIST, CIFAR-10, and series of a watch."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tests.bench import cifar, compressed, fashion, watch


def save(name: str, most: int, output: Path) -> None:
    """train.npz, of the first `most` samples, and test.npz, of all, in the folder `output`."""
    for part in ("train", "test"):
        samples, labels = _SETS[name](part)
        kept = most if part == "train" else None
        np.savez(output / f"{part}.npz", input=samples[:kept], labels=labels[:kept])


def _fashion(part: str) -> tuple[np.ndarray, np.ndarray]:
    return fashion.part("train" if part == "train" else "t10k")


def _cifar(part: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = cifar.training() if part == "train" else cifar.images()
    return compressed.planes(images), labels


_SETS: Mapping[str, Callable[[str], tuple[np.ndarray, np.ndarray]]] = {
    "fashion": _fashion,
    "cifar": _cifar,
    "watch": watch.part,
}
