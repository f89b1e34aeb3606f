"""Images out of a folder: every file of it is decoded, or is named as the reason why not.

Labels come from the file names by a pattern (`imagenet_*_{label}.jpg`), from a .json or .csv file that maps file names
to a class index or to several acceptable ones, or from the sub-folders' names (whole numbers, else in sorted order).
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import translate
from pathlib import Path
from typing import TYPE_CHECKING

from convkit.compress.archive import check_memory
from convkit.compress.errors import ConvkitError
from convkit.compress.preprocess import Preprocess, apply, input_size

if TYPE_CHECKING:
    import numpy as np

    from convkit.compress.model import TensorSpec

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
_BESIDE = frozenset({".txt", ".md", ".rst", ".json", ".xml", ".csv", ".yaml", ".yml", ".html", ".py", ".pyi", ".pyc"})
"""What may stand beside images without being one of them: descriptions, labels, a package's own code."""
_LABEL = "{label}"
NO_LABELS = "none"

Classes = list[list[int]]


def find(folder: Path, pattern: str | None = None) -> list[Path]:
    """The images below `folder`, sorted by path; with a pattern those whose name or relative path matches it.

    Raises ConvkitError for a file that is neither an image nor a description, and when there is no image.
    """
    everything = sorted(f for f in folder.rglob("*") if f.is_file() and not _hidden(f.relative_to(folder)))
    if pattern is not None:
        match = _matcher(pattern)
        found = [f for f in everything if match(f.relative_to(folder)) is not None]
    else:
        found = [f for f in everything if f.suffix.lower() in SUFFIXES]
        _refuse_foreign(f for f in everything if f.suffix.lower() not in SUFFIXES)
    if not found:
        which = f" that matches {pattern!r}" if pattern else ""
        raise ConvkitError(f"there is no image{which} in {folder}", hint=f"convkit reads {', '.join(sorted(SUFFIXES))}")
    return found


def read(files: Sequence[Path], preprocess: Preprocess, spec: TensorSpec) -> np.ndarray:
    """[N, …] of `spec`: each file decoded once."""
    import numpy as np

    height, width = input_size(preprocess, spec)
    channels = 1 if preprocess.colours == "L" else 3
    shape = (channels, height, width) if preprocess.layout == "NCHW" else (height, width, channels)
    check_memory(len(files) * int(np.prod(shape)) * np.dtype(spec.dtype).itemsize, f"{len(files)} images")
    samples = np.empty((len(files), *shape), spec.dtype)
    for sample, file in zip(samples, files, strict=True):
        sample[...] = _decode(file, preprocess, spec)
    return samples


def _decode(file: Path, preprocess: Preprocess, spec: TensorSpec) -> np.ndarray:
    import warnings

    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning)  # odd metadata, good pixels
            with Image.open(file) as image:
                if image.mode.startswith(("I", "F")):
                    raise ConvkitError(f"image {file} has {image.mode} pixels", hint="convert it to 8 bits a channel")
                return apply(image, preprocess, spec)
    except ConvkitError:
        raise
    except Exception as error:
        # Pillow's decoders raise whatever the broken bytes lead them to: OSError, SyntaxError, struct.error …
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConvkitError(f"{file} is no readable image: {reason}", hint="remove or replace it") from error


def labels(folder: Path, files: Sequence[Path], pattern: str | None, source: str | None) -> np.ndarray | None:
    """Class index per file [N], or the matrix [N, K] of acceptable classes; None where nothing tells them.

    `source` is a labels file, "none", or None for the pattern or the sub-folders. Raises ConvkitError for a file
    without a label.
    """
    names = [file.relative_to(folder) for file in files]
    if source == NO_LABELS:
        return None
    if source is not None:
        return matrix(_from_file(_labels_file(source, folder), names))
    if pattern is not None and _LABEL in pattern:
        match = _matcher(pattern)
        return matrix([[_index(str(match(name)), name)] for name in names])
    return matrix(_from_folders(names))


def matrix(classes: Classes | None) -> np.ndarray | None:
    """int64 [N] where each sample has one class, else boolean [N, K] with K one above the highest class."""
    import numpy as np

    if classes is None:
        return None
    if all(len(several) == 1 for several in classes):
        return np.array([several[0] for several in classes], dtype=np.int64)
    acceptable = np.zeros((len(classes), max(map(max, classes)) + 1), dtype=bool)
    for row, several in zip(acceptable, classes, strict=True):
        row[several] = True
    return acceptable


def _from_folders(names: Sequence[Path]) -> Classes | None:
    if any(len(name.parts) == 1 for name in names):
        return None
    folders = sorted({name.parts[0] for name in names})
    if all(folder.isdecimal() for folder in folders):
        return [[int(name.parts[0])] for name in names]
    index = {folder: [i] for i, folder in enumerate(folders)}
    return [index[name.parts[0]] for name in names]


def _from_file(file: Path, names: Sequence[Path]) -> Classes:
    """Files are looked up by relative path, by name, and by either without the suffix."""
    known = _read_labels(file)
    found = []
    for name in names:
        keys = (name.as_posix(), name.name, name.with_suffix("").as_posix(), name.stem)
        label = next((known[key] for key in keys if key in known), None)
        if label is None:
            raise ConvkitError(f"{file} has no label for {name.as_posix()}", hint="add it, or select files by pattern")
        several = label if isinstance(label, list) else [label]
        if not several:
            raise ConvkitError(f"{file} has an empty label for {name.as_posix()}")
        found.append([_index(one, name) for one in several])
    return found


def _read_labels(file: Path) -> Mapping[str, object]:
    try:
        if file.suffix == ".csv":
            return _read_csv(file)
        known = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, csv.Error) as error:
        raise ConvkitError(f"cannot read labels {file}: {error}") from error
    if not isinstance(known, dict):
        raise ConvkitError(f"labels {file} are no JSON object", hint='write {"file.jpg": 3, "other.jpg": [4, 5]}')
    return known


def _read_csv(file: Path) -> Mapping[str, object]:
    """Lines of `file,index` or `file,index,index…`; a first line without a number is a header."""
    with file.open(newline="", encoding="utf-8-sig") as stream:  # spreadsheets begin with a mark
        rows = [row for row in csv.reader(stream) if row]
    if rows and not any(cell.strip().isdecimal() for cell in rows[0][1:]):
        rows = rows[1:]
    return {row[0]: [cell.strip() for cell in row[1:] if cell.strip()] for row in rows}


def _labels_file(source: str, folder: Path) -> Path:
    places = (Path(source), folder / source)
    file = next((place for place in places if place.is_file()), None)
    if file is None or file.suffix not in {".json", ".csv"}:
        raise ConvkitError(f"{source!r} is no labels file", hint="give a .json or .csv of file names and class indices")
    return file


def _index(label: object, name: Path) -> int:
    text = str(label)
    if isinstance(label, bool) or not text.isdecimal():
        raise ConvkitError(f"the label of {name.as_posix()} is {label!r}", hint="give class indices, from 0 on")
    return int(text)


def _matcher(pattern: str) -> Callable[[Path], str | None]:
    """A function that gives a matching path's label ("" if the pattern has none), or None."""
    if pattern.count(_LABEL) > 1:
        raise ConvkitError(f"pattern {pattern!r} has more than one {_LABEL}")
    before, label, after = pattern.partition(_LABEL)
    group = r"(?P<label>[^/]+?)" if label else ""
    expression = re.compile(_glob(before) + group + _glob(after))
    whole = "/" in pattern

    def match(name: Path) -> str | None:
        found = expression.fullmatch(name.as_posix() if whole else name.name)
        return None if found is None else found.groupdict().get("label", "")

    return match


def _glob(text: str) -> str:
    r"""fnmatch's expression without its anchors, `(?s:…)\Z`."""
    return re.sub(r"\\[Zz]$", "", translate(text))


def _hidden(name: Path) -> bool:
    return any(part.startswith((".", "__pycache__")) for part in name.parts)


def _refuse_foreign(files: Iterable[Path]) -> None:
    for file in files:
        if file.suffix.lower() not in _BESIDE and file.stem.upper() not in {"README", "LICENSE", "LICENCE", "THUMBS"}:
            raise ConvkitError(
                f"{file} is no image", hint="remove it, or select the images by a pattern such as '*.jpg'"
            )
