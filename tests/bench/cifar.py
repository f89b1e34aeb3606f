"""CIFAR-10 zero-shot: an ImageNet classifier on the 10,000 test images, scored without being trained for them.

Images are upsampled to the network's size; the softmax is summed over the ImageNet classes of each CIFAR class.

    python -m tests.bench.cifar NETWORK.onnx [COUNT]     accuracy in ONNX Runtime
"""

import functools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tests.bench import packages, photos

GROUPS: dict[str, list[int]] = photos.LABELS["cifar10_groups"]
"""ImageNet classes by CIFAR class, in CIFAR's order of classes."""
IMAGES = 10_000


@functools.cache
def images() -> tuple[np.ndarray, np.ndarray]:
    """Test images uint8 [10000, 32, 32, 3] and their classes [10000]."""
    return _sheet("test_batch.png"), np.array(json.loads((_folder() / "test_lables.json").read_text()))


def batches(size: int = 224, batch: int = 50, count: int = IMAGES) -> Iterator[np.ndarray]:
    """The first `count` test images, float32 [batch, 3, size, size], as the Lite networks take them."""
    pixels, _ = images()
    return _batches(pixels[:count], size, batch)


def unscored(count: int, size: int = 224, batch: int = 50) -> Iterator[np.ndarray]:
    """The first `count` training images likewise."""
    return _batches(_sheet("data_batch_1.png")[:count], size, batch)


def training() -> tuple[np.ndarray, np.ndarray]:
    """Training images uint8 [50000, 32, 32, 3] and their classes [50000]."""
    sheets = [_sheet(f"data_batch_{part}.png") for part in range(1, 6)]
    return np.concatenate(sheets), np.array(json.loads((_folder() / "train_lables.json").read_text()))


def predictions(scores: np.ndarray) -> np.ndarray:
    """CIFAR class [N] of each row of ImageNet scores (logits) [N, 1000]."""
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    return np.stack([odds[:, classes].sum(axis=1) for classes in GROUPS.values()], axis=1).argmax(axis=1)


def accuracy(scores: np.ndarray) -> float:
    """Percent of the first len(scores) test images that are classified right."""
    return float((predictions(scores) == images()[1][: len(scores)]).mean() * 100)


def _folder() -> Path:
    return packages.unpacked(packages.CIFAR10) / "package"


def _sheet(name: str) -> np.ndarray:
    """Images uint8 [N, 32, 32, 3] of a picture that has one a row."""
    with Image.open(_folder() / name) as sheet:
        return np.asarray(sheet).reshape(-1, 32, 32, 3)


def _batches(pixels: np.ndarray, size: int, batch: int) -> Iterator[np.ndarray]:
    for start in range(0, len(pixels), batch):
        yield np.stack([_input(image, size) for image in pixels[start : start + batch]])


def _input(image: np.ndarray, size: int) -> np.ndarray:
    large = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    return ((np.asarray(large, np.float32) - 127) / 128).transpose(2, 0, 1)


def main(path: str, count: int) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (feed,) = session.get_inputs()
    scores = [session.run(None, {feed.name: batch})[0] for batch in batches(feed.shape[-1], count=count)]
    print(f"{accuracy(np.concatenate(scores)):.2f} % of {count}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else IMAGES)
