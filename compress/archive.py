"""Arrays out of .npy and .npz files, from strangers: nothing is unpickled, nothing larger than the memory is read."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".npy", ".npz")


def read(path: Path) -> dict[str, np.ndarray]:
    """Arrays by name; the one array of a .npy is named "". Raises ConvkitError for whatever is no such file."""
    try:
        check_memory(_size(path), str(path))
        return _read(path)
    except ConvkitError:
        raise
    except FileNotFoundError as error:
        raise ConvkitError(f"there is no data file {path}") from error
    except MemoryError as error:
        raise ConvkitError(f"{path} says it holds more than the memory takes", hint="give fewer samples") from error
    except Exception as error:
        # numpy parses a header as Python text: broken bytes end in zip, zlib, tokenizer and syntax errors alike.
        raise ConvkitError(f"{path} is no readable {path.suffix}: {_reason(error)}", hint=_hint(error)) from error


def _read(path: Path) -> dict[str, np.ndarray]:
    import warnings

    import numpy as np

    with warnings.catch_warnings(), path.open("rb") as stream:
        warnings.simplefilter("ignore", UserWarning)  # headers that Python 2 wrote are read well
        # Given a path instead of a stream, numpy leaves the file open when it is no archive.
        content = np.load(stream, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return {"": content}
        with content:
            return {name: content[name] for name in content.files}


def headers(path: Path) -> dict[str, np.ndarray]:
    """Arrays by name with the shapes and types that `path` says, but no memory and no values; empty for what `read`
    refuses, which says why."""
    try:
        if path.suffix == ".npy":
            with path.open("rb") as stream:
                return {"": _stand_in(stream)}
        with zipfile.ZipFile(path) as content:
            return {name.removesuffix(".npy"): _member(content, name) for name in content.namelist()}
    except Exception:  # noqa: BLE001 - a broken header raises anything
        return {}


def _member(content: zipfile.ZipFile, name: str) -> np.ndarray:
    with content.open(name) as stream:
        return _stand_in(stream)


def _stand_in(stream: IO[bytes]) -> np.ndarray:
    import numpy as np
    from numpy.lib import format as numpy_format

    version = numpy_format.read_magic(stream)
    header = numpy_format.read_array_header_1_0 if version == (1, 0) else numpy_format.read_array_header_2_0
    shape, _, dtype = header(stream)
    return np.broadcast_to(np.zeros((), dtype), shape)


def check_memory(size: int, what: str, hint: str = "give fewer samples, or set a limit") -> None:
    """Refuse what would take more than half of the free memory, before it is read."""
    import psutil

    free = psutil.virtual_memory().available
    if size > free // 2:
        raise ConvkitError(
            f"{what} takes {size / 2**30:.1f} GiB of the {free / 2**30:.1f} GiB of free memory",
            hint=hint,
        )


def check_zip(file: Path | IO[bytes], what: str) -> None:
    """The same of a .zip that is unpacked whole: a file of zeros can be a thousandth of what it holds."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            check_memory(sum(entry.file_size for entry in archive.infolist()), what, "give one that fits")


def _size(path: Path) -> int:
    """Bytes of the arrays when unpacked; an .npz of zeros can be a thousandth of what it holds."""
    if path.suffix == ".npz" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    return path.stat().st_size


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _hint(error: Exception) -> str:
    if "allow_pickle" in str(error):
        return "convkit never unpickles: save plain number arrays"
    return "write it anew with numpy.savez"
