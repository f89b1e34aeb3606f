"""The Data: samples for a network's inputs, with labels where there are any, read and checked once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.compress import archive, data_checks, function, images, package, record
from convkit.compress.data_checks import LABELS
from convkit.compress.errors import ConvkitError
from convkit.compress.model import TensorSpec
from convkit.compress.preprocess import Preprocess

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class DataRef:
    """What a user names data by.

    `path`: a folder of images, an .npz of arrays named after the inputs (samples first, `labels` optional), an .npy for
    a network with one input, or `package.module:function` that returns such arrays, or (arrays, labels); a folder or
    file may be given as pkg://package/path. `pattern`, `labels` and `preprocess` concern images (see `images`), `args`
    the function. `limit` keeps that many samples, evenly spread.
    """

    path: str
    preprocess: Preprocess = field(default_factory=Preprocess)
    labels: str | None = None
    pattern: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Arrays [N, …] by input name, or one number that all samples share; `labels` are class indices [N], a boolean
    matrix [N, K] of acceptable classes, or target arrays [N, …] (for PSNR). `digest` is the sha256 of all of it and of
    the preprocessing.
    """

    arrays: Mapping[str, np.ndarray]
    labels: np.ndarray | None
    digest: str

    def __len__(self) -> int:
        return next((len(array) for array in self.arrays.values() if array.ndim), 1)

    def batch(self, index: slice | Sequence[int]) -> Data:
        """The samples at `index`, in its order."""
        rows = list(range(len(self))[index]) if isinstance(index, slice) else [int(i) for i in index]
        arrays = {name: array[index] if array.ndim else array for name, array in self.arrays.items()}
        labels = None if self.labels is None else self.labels[index]
        return Data(arrays, labels, record.digest_json([self.digest, rows]))

    def batches(self, size: int) -> Iterator[Data]:
        """All samples in order, `size` at a time; the last batch may be smaller."""
        return (self.batch(slice(start, start + size)) for start in range(0, len(self), size))

    def filled(self, size: int) -> Data:
        """The first `size` samples; where there are fewer, they come again."""
        return self.batch([row % len(self) for row in range(size)])

    def some(self, most: int) -> Data:
        """At most so many, evenly from all: neighbours are often of one class."""
        count = len(self)
        return self if count <= most else self.batch([at * count // most for at in range(most)])

    def whole(self, size: int) -> Data:
        """In whole batches of `size`: what is over is left out, and too few samples for one come again."""
        return self.filled(len(self) // size * size or size)

    def split(self, fraction: float, seed: int = 0) -> tuple[Data, Data]:
        """(calibration, held back): a random `fraction` of the samples is held back, at least one, never all.

        Raises ConvkitError for a single sample.
        """
        import numpy as np

        if len(self) < 2:  # noqa: PLR2004
            raise ConvkitError(
                "the data has 1 sample: none can be held back", hint="give at least 2, better 50 or more"
            )
        held = min(max(round(len(self) * fraction), 1), len(self) - 1)
        order = np.random.default_rng(seed).permutation(len(self))
        kept, back = sorted(order[held:].tolist()), sorted(order[:held].tolist())
        return self.batch(kept), self.batch(back)


def load(ref: DataRef, inputs: tuple[TensorSpec, ...]) -> Data:
    """The Data behind `ref`, checked against the network's inputs.

    Raises ConvkitError for data that is missing, broken, empty, constant, not finite, or of another shape or type.
    """
    place = package.resolve(ref.path)
    if Path(place).is_dir():
        return _from_images(Path(place), ref, inputs)
    if Path(place).suffix in archive.SUFFIXES:
        return _from_arrays(place, archive.read(Path(place)), None, ref, inputs)
    if function.names_one(place):
        return _from_arrays(place, *_called(place, ref.args), ref, inputs)
    reason = "is no data that convkit reads" if Path(place).exists() else "does not exist"
    raise ConvkitError(
        f"data {ref.path!r} {reason}", hint="give a folder of images, .npz, .npy or package.module:function"
    )


def shapes(ref: DataRef) -> dict[str, tuple[int, ...]]:
    """Shapes of stored arrays by name ("" where they have none), samples first; empty for any other data."""
    place = Path(package.resolve(ref.path))
    found = archive.headers(place) if place.suffix in archive.SUFFIXES and place.is_file() else {}
    return {name: array.shape for name, array in found.items()}


def check(ref: DataRef, inputs: Callable[[], tuple[TensorSpec, ...]] | None) -> None:
    """Refuse what `load` refuses, as far as names of files and headers of arrays tell; no sample is read.

    `inputs` is asked where there are arrays to hold against the network's inputs; None where those are not known yet.
    """
    place = package.resolve(ref.path)
    if Path(place).is_dir():
        files = images.find(Path(place), ref.pattern)
        images.labels(Path(place), files, ref.pattern, ref.labels)
    elif found := archive.headers(Path(place)) if Path(place).suffix in archive.SUFFIXES else {}:
        wanted = inputs() if inputs else ()
        arrays, _ = _named(place, found, None, wanted)
        data_checks.check_specs(place, arrays, wanted)
    elif function.names_one(place):
        function.load(place)
    elif inputs:
        load(ref, inputs())


def _from_images(folder: Path, ref: DataRef, inputs: tuple[TensorSpec, ...]) -> Data:
    if len(inputs) != 1:
        names = ", ".join(spec.name for spec in inputs)
        raise ConvkitError(
            f"images feed one input, the network has {names}", hint="give an .npz with an array for each"
        )
    found = images.find(folder, ref.pattern)
    rows = list(_rows(len(found), ref.limit))
    files = [found[row] for row in rows]
    labels = images.labels(folder, found, ref.pattern, ref.labels)  # of all: sub-folders are numbered in their order
    labels = None if labels is None else labels[rows]
    arrays = {inputs[0].name: images.read(files, ref.preprocess, inputs[0])}
    return _data(str(folder), arrays, labels, inputs, ref.preprocess.as_dict())


def _called(path: str, args: Mapping[str, Any]) -> tuple[Mapping[str, np.ndarray], np.ndarray | None]:
    """(arrays, labels) of the user's function."""
    import numpy as np

    result = function.call(path, **args)
    arrays, labels = result if isinstance(result, tuple) and len(result) == 2 else (result, None)  # noqa: PLR2004
    good = isinstance(arrays, Mapping) and all(isinstance(array, np.ndarray) for array in arrays.values())
    if not good or not (labels is None or isinstance(labels, np.ndarray)):
        raise ConvkitError(
            f"{path} returned {type(result).__name__}", hint="return {input name: numpy array}, or that and the labels"
        )
    return arrays, labels


def _from_arrays(
    origin: str,
    found: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
    ref: DataRef,
    inputs: tuple[TensorSpec, ...],
) -> Data:
    arrays, labels = _named(origin, found, labels, inputs)
    rows = _rows(next(len(array) for array in arrays.values() if array.ndim), ref.limit)
    if ref.limit is not None:
        arrays = {name: array[rows] if array.ndim else array for name, array in arrays.items()}
        labels = None if labels is None else labels[rows]
    return _data(origin, arrays, labels, inputs, None)


def _named(
    origin: str, found: Mapping[str, np.ndarray], labels: np.ndarray | None, inputs: tuple[TensorSpec, ...]
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """The arrays of the inputs, and the labels; as many samples of each."""
    arrays = dict(found)
    if labels is None and LABELS not in {spec.name for spec in inputs}:
        labels = arrays.pop(LABELS, None)
    if "" in arrays and len(inputs) == 1:
        arrays = {inputs[0].name: arrays[""]}
    for spec in inputs:
        if spec.name not in arrays:
            has = ", ".join(filter(None, arrays)) or "one array without a name"
            raise ConvkitError(f"{origin} has no array for input {spec.name!r}", hint=f"it has: {has}")
    arrays = {spec.name: arrays[spec.name] for spec in inputs}
    data_checks.check_length(origin, arrays, labels)
    return arrays, labels


def _data(
    origin: str,
    arrays: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
    inputs: tuple[TensorSpec, ...],
    preprocess: Mapping[str, Any] | None,
) -> Data:
    data_checks.check_specs(origin, arrays, inputs)
    data_checks.check_values(origin, arrays)
    if labels is not None:
        data_checks.check_labels(origin, labels)
    digests = [record.digest_arrays(arrays), None if labels is None else record.digest_arrays({LABELS: labels})]
    return Data(arrays, labels, record.digest_json([*digests, preprocess]))


def _rows(count: int, limit: int | None) -> list[int]:
    """Which of `count` samples are kept; spread, because neighbours in a folder are often of one class."""
    if limit is not None and limit < 1:
        raise ConvkitError(f"limit is {limit}", hint="give at least 1")
    kept = count if limit is None else min(limit, count)
    return [row * count // kept for row in range(kept)]
