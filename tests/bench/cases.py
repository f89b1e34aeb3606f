"""The Cases: each network of the benches with the data it is calibrated on and other data it is scored on."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convkit.compress import record
from convkit.compress.data import Data
from tests.bench import networks, photos, stored, text

LINES, LINES_TO_READ = 92, 300
"""Rendered lines of text to calibrate on, and others to score on."""


@dataclass(frozen=True, slots=True)
class Case:
    """A network and its data. `metrics` are scored on `evaluation`; `accuracy` are those that must not fall below
    a peer's; `truth`: the right outputs for `calibration`, where that has any.
    """

    name: str
    model: Path
    calibration: Mapping[str, np.ndarray]
    evaluation: Data
    metrics: tuple[str, ...]
    accuracy: tuple[str, ...]
    truth: np.ndarray | None = None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each input at batch 1."""
        return {name: (1, *array.shape[1:]) for name, array in self.evaluation.arrays.items()}


def load(name: str, samples: int | None = None) -> Case:
    """The case called `name`; `samples` keeps only so many to calibrate and score on."""
    calibration, inputs, labels, *true = arrays_of(name)
    ocr = name in networks.OCR
    model, feed = (networks.sized(name, inputs.shape), "x") if ocr else (networks.onnx_file(name), "inputs")
    arrays = {feed: inputs[:samples]}
    data = Data(arrays, labels[:samples], record.digest_arrays(arrays))
    truth = true[0][:samples] if true else None
    return Case(name, model, {feed: calibration[:samples]}, data, *METRICS[name], truth)


def arrays_of(name: str) -> "Arrays":
    """As they were stored, else from their packages."""
    return stored.read(name) or CASES[name](name)


def lines_read(
    outputs: Mapping[str, np.ndarray], _reference: Mapping[str, np.ndarray] | None, labels: np.ndarray
) -> float:
    """Percent of the lines that are read without a mistake."""
    (odds,) = outputs.values()
    return text.accuracy(odds, labels.tolist(), _characters())


lines_read.needs = "labels"  # type: ignore[attr-defined]
lines_read.unit = "%"  # type: ignore[attr-defined]


def text_kept(
    outputs: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray], _labels: np.ndarray | None
) -> float:
    """Percent of the lines that are read as the float network reads them, right or wrong."""
    (odds,), (of_float,) = outputs.values(), reference.values()
    pairs = zip(text.read(odds, _characters()), text.read(of_float, _characters()), strict=True)
    return 100 * float(np.mean([one == other for one, other in pairs]))


text_kept.unit = "%"  # type: ignore[attr-defined]


@functools.cache
def _characters() -> list[str]:
    return text.characters(str(networks.onnx_file("ocr_rec")))


Arrays = tuple[np.ndarray, ...]
"""Inputs to calibrate on, inputs to score on, their labels, and perhaps the true outputs for the first."""


def _photos(name: str) -> Arrays:
    return photos.calibration_array(photos.SIZES[name]), *photos.labelled_arrays(photos.SIZES[name])


def _super_resolution(_name: str) -> Arrays:
    """Every fourth photo to calibrate on (a pass takes 14 GMACs each), every other one of the rest to score on."""
    low, true, _ = networks.super_resolution_pairs()
    return low[::4], low[1::2], true[1::2], true[::4]


def _lines(_name: str) -> Arrays:
    inputs, texts = text.lines(LINES_TO_READ, seed=1)
    return text.lines(LINES)[0], inputs, np.array(texts)


CASES: dict[str, Callable[[str], Arrays]] = {
    "lite0": _photos,
    "lite1": _photos,
    "lite2": _photos,
    "upconv7": _super_resolution,
    "ocr_rec": _lines,
}
_CLASSIFIES = (("top1", "top5", "agreement", "sqnr"), ("top1", "agreement"))
_READS = (
    ("tests.bench.cases:lines_read", "tests.bench.cases:text_kept", "agreement", "sqnr"),
    ("tests.bench.cases:lines_read", "tests.bench.cases:text_kept"),
)
METRICS = {
    "lite0": _CLASSIFIES,
    "lite1": _CLASSIFIES,
    "lite2": _CLASSIFIES,
    "upconv7": (("psnr", "sqnr"), ("psnr",)),
    "ocr_rec": _READS,
}
