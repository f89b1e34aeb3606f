"""Real photos out of pinned packages: 92 to calibrate on, 235 with acceptable ImageNet classes.

python -m tests.bench.photos FOLDER     writes lite{0,1,2}_{calib,photos}.npz there
"""

import functools
import io
import json
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from PIL import Image

from convkit.compress.model import TensorSpec
from convkit.compress.preprocess import Preprocess, apply
from tests.bench import packages, rcc

LABELS = json.loads(Path(__file__).with_name("photo_labels.json").read_text())
SIZES = {"lite0": 224, "lite1": 240, "lite2": 260}
CLASSES = 1000


def preprocess(size: int) -> Preprocess:
    """As EfficientNet-Lite was trained: (x - 127) / 128 on the centre min(w, h) * S / (S + 32)."""
    return Preprocess(crop=size / (size + 32), mean=(127.0,), std=(128.0,))


def calibration() -> list[Image.Image]:
    """The 92 unlabelled photos, sorted by path."""
    paths = sorted(path for path in _gcompris() if any(_matches(path, glob) for glob in LABELS["calibration"]))
    return [_decode(_gcompris()[path]) for path in paths]


def labelled() -> Iterator[tuple[Image.Image, list[int]]]:
    """The 235 photos with their acceptable classes: 20 of foolbox, 70 of gcompris, 145 of tuxpaint."""
    for file in sorted((packages.unpacked(packages.FOOLBOX) / "foolbox/data").glob("imagenet_*.jpg")):
        yield Image.open(file).convert("RGB"), [int(file.stem.rsplit("_", 1)[1])]
    for path, classes in LABELS["gcompris"].items():
        yield _decode(_gcompris()[f"{path}.webp"]), classes
    stamps = packages.unpacked(packages.TUXPAINT) / "usr/share/tuxpaint/stamps"
    files = {file.relative_to(stamps).with_suffix("").as_posix(): file for file in stamps.rglob("*.png")}
    for stem, classes in LABELS["tuxpaint"].items():
        (file,) = (found for path, found in files.items() if path == stem or path.endswith(f"/{stem}"))
        yield _on_white(Image.open(file)), classes


def calibration_array(size: int) -> np.ndarray:
    """float32 [92, 3, size, size]."""
    return _stack(calibration(), size)


def labelled_arrays(size: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 [235, 3, size, size] and the boolean matrix [235, 1000] of acceptable classes."""
    images, classes = zip(*labelled(), strict=True)
    labels = np.zeros((len(images), CLASSES), dtype=bool)
    for row, acceptable in zip(labels, classes, strict=True):
        row[acceptable] = True
    return _stack(list(images), size), labels


def _stack(images: list[Image.Image], size: int) -> np.ndarray:
    spec = TensorSpec("inputs", ("N", 3, size, size), "float32", (1, 3, size, size))
    return np.stack([apply(image, preprocess(size), spec) for image in images])


@functools.cache
def _gcompris() -> dict[str, bytes]:
    """Path under gcompris/src/activities/ -> content of each webp file."""
    folder = packages.unpacked(packages.GCOMPRIS) / "usr/share/gcompris-qt/rcc"
    root = "gcompris/src/activities/"
    return {
        path.removeprefix(root): read()
        for archive in sorted(folder.glob("*.rcc"))
        for path, read in rcc.files(archive)
        if path.startswith(root) and path.endswith(".webp")
    }


def _matches(path: str, glob: str) -> bool:
    return fnmatch(path, glob) or fnmatch(path, glob.replace("**/", ""))


def _decode(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def _on_white(stamp: Image.Image) -> Image.Image:
    """Cropped to what is opaque, centred on a white square of 1.25 times the longer side."""
    stamp = stamp.convert("RGBA")
    stamp = stamp.crop(stamp.getchannel("A").getbbox())
    side = int(max(stamp.size) * 1.25)
    square = Image.new("RGB", (side, side), "white")
    square.paste(stamp, ((side - stamp.width) // 2, (side - stamp.height) // 2), stamp)
    return square


def main(folder: str) -> None:
    for name, size in SIZES.items():
        photos, labels = labelled_arrays(size)
        np.savez(Path(folder) / f"{name}_photos.npz", inputs=photos, labels=labels)
        np.savez(Path(folder) / f"{name}_calib.npz", inputs=calibration_array(size))


if __name__ == "__main__":
    main(sys.argv[1])
