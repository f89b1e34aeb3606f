"""The arrays of a case as lossless images in the cache, for a machine that has not the packages they come from.

They are pixel for pixel those of the machine that stored them: another Pillow might resize otherwise.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tests.bench import packages

SCALES = {"lite0": (127, 128), "lite1": (127, 128), "lite2": (127, 128), "upconv7": (0, 255)}
"""Mean and deviation by which pixels 0..255 became the arrays of a network."""
_ROLES = ("calibration", "inputs", "labels", "truth")
_CLASSES = "labels.npy"


def read(name: str) -> tuple[np.ndarray, ...] | None:
    """Calibration, inputs, labels and perhaps the truth of the case called `name`; None where they are not stored."""
    folder = packages.CACHE / "arrays" / name
    if not folder.is_dir():
        return None
    arrays = [_images(folder / role, name) for role in _ROLES]
    if (folder / _CLASSES).is_file():
        arrays[_ROLES.index("labels")] = np.unpackbits(np.load(folder / _CLASSES), axis=1).astype(bool)
    return tuple(array for array in arrays if len(array))


def written(name: str, arrays: tuple[np.ndarray, ...]) -> Iterator[tuple[Path, bytes]]:
    """The files of a case's arrays, by their paths in the cache."""
    folder = Path("arrays") / name
    for role, array in zip(_ROLES, arrays, strict=False):
        if array.dtype == bool:
            yield folder / _CLASSES, _bytes(np.packbits(array, axis=1))
            continue
        for number, pixels in enumerate(_pixels(array, name)):
            yield folder / role / f"{number:03}.webp", _encoded(pixels)


def _pixels(array: np.ndarray, name: str) -> np.ndarray:
    """uint8 [N, H, W, 3]; ends the bench where the array is not made of such."""
    mean, deviation = SCALES[name]
    pixels = np.rint(array * deviation + mean).astype(np.uint8)
    if not np.array_equal(_scaled(pixels, name), array):
        raise SystemExit(f"the arrays of {name} are no images of 8 bits")
    return pixels.transpose(0, 2, 3, 1)


def _scaled(pixels: np.ndarray, name: str) -> np.ndarray:
    mean, deviation = (np.float32(number) for number in SCALES[name])
    return (pixels - mean) / deviation


def _images(folder: Path, name: str) -> np.ndarray:
    """float32 [N, 3, H, W]; of no length where there is no such folder."""
    images = [np.asarray(Image.open(file)) for file in sorted(folder.glob("*.webp"))]
    return _scaled(np.stack(images).transpose(0, 3, 1, 2), name) if images else np.empty(0)


def _encoded(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "WEBP", lossless=True)
    return stream.getvalue()


def _bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()
