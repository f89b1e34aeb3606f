"""The Checkpoint of a search: what is finished, beside the output, so that a run that was killed goes on from there.

Everything is written atomically under .OUTPUT.search/, which bears the digest of all that went in; what is of another
search is thrown away, and all of it once the output stands.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from convkit.cli import show
from convkit.compress import record, writing
from convkit.compress.errors import ConvkitError

T = TypeVar("T")
_KEY, _LOCK = "key.json", "lock"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Values by name, and files, in `folder`; None keeps nothing. `lock`, a file that stays open as long as the process
    lives, keeps other processes out of it.
    """

    folder: Path | None = None
    lock: int | None = field(default=None, repr=False, compare=False)

    def value(self, name: str) -> Any:  # noqa: ANN401 - whatever was kept
        """What was kept under `name`; None where nothing was."""
        try:
            return None if self.folder is None else json.loads((self.folder / f"{name}.json").read_text())
        except (OSError, ValueError):
            return None

    def keep(self, name: str, value: object) -> None:
        """Keep what JSON can hold."""
        if self.folder is not None:
            record.write_json(self.folder / f"{name}.json", value)

    def kept(self, name: str, make: Callable[[], T], pack: Callable[[T], object], unpack: Callable[[Any], T]) -> T:
        """The value kept under `name`, else what `make` gives, which is kept then."""
        found = self.value(name)
        if found is not None:
            return unpack(found)
        made = make()
        self.keep(name, pack(made))
        return made

    def add(self, name: str, entries: Mapping[str, object]) -> None:
        """Add to the mapping kept under `name`."""
        self.keep(name, {**(self.value(name) or {}), **entries})

    def begin(self, values: Mapping[str, Any]) -> None:
        """Keep `values` that were found elsewhere: what is kept of a mapping already stays, all else is as they have
        it.
        """
        for name, value in values.items():
            known = self.value(name) or {} if isinstance(value, Mapping) else None
            self.keep(name, value if known is None else {**value, **known})

    def file(self, name: str) -> Path | None:
        """The file kept under `name`."""
        path = None if self.folder is None else self.folder / name
        return path if path is not None and path.is_file() else None

    def keep_file(self, name: str, path: Path) -> None:
        """Keep the bytes of `path`."""
        if self.folder is not None:
            record.write_bytes(self.folder / name, path.read_bytes())

    def done(self) -> None:
        """Nothing is needed any more. The key goes first: what is left of a removal that was killed is of no search."""
        if self.folder is not None:
            with contextlib.suppress(OSError):
                (self.folder / _KEY).unlink()
            shutil.rmtree(self.folder, ignore_errors=True)


_AFRESH = "an interrupted search is begun anew; --resume goes on from it"
_ANOTHER = "an interrupted search for this output had other options, data or versions: it is begun anew"


def beside(output: str, key: object, *, resume: bool) -> Checkpoint:
    """The checkpoint of the search that `key` describes, whose result goes to `output`; empty unless it resumes.

    Raises ConvkitError where another process searches for that output.
    """
    final = record.final_place(output)
    folder, digest = final.with_name(f".{final.name}.search"), record.digest_json(key)
    folder.mkdir(parents=True, exist_ok=True)
    found = Checkpoint(folder, _locked(folder, output))
    known = found.value("key")
    if not resume or known != digest:
        if known is not None:
            show.note(_AFRESH if known == digest else _ANOTHER)
        _clear(folder)
    found.keep("key", digest)
    return found


def _locked(folder: Path, output: str) -> int:
    lock = writing.claimed(folder / _LOCK)
    if lock is None:
        raise ConvkitError(f"another search writes to {output}", hint="wait for it, or give another --output")
    return lock


def _clear(folder: Path) -> None:
    """Remove what is of another search, its key first."""
    (folder / _KEY).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != _LOCK:
            path.unlink()
