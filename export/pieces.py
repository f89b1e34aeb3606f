"""A stream of bytes as pieces: files of a size that every carrier takes, each with its checksum."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from convkit.compress import record

SUMS = "SHA256SUMS"
"""As `sha256sum --check` reads it."""
_PLACES = 4
"""Digits of a piece's number: a shell's pattern lists the pieces in their order."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A file, its bytes and their sha256."""

    name: str
    bytes: int
    digest: str


class Splitter(io.RawIOBase):
    """A stream into `folder`, as the files `name`.0000, `name`.0001 … of `size` bytes each, the last of what is left.

    Only what is written at a time is in memory: wheels come to gigabytes. `pieces` are complete once it is closed.
    """

    def __init__(self, folder: Path, name: str, size: int) -> None:
        self._folder, self._name, self._size = folder, name, size
        self._file: BinaryIO | None = None
        self._sum, self._held = hashlib.sha256(), 0
        self.pieces: list[Piece] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401 - whatever has a buffer
        """All of `data`, into as many pieces as that takes."""
        rest = memoryview(data)
        while rest:
            part = rest[: self._size - self._held]
            self._open().write(part)
            self._sum.update(part)
            self._held += len(part)
            rest = rest[len(part) :]
            if self._held == self._size:
                self._finish()
        return len(data)

    def close(self) -> None:
        self._finish()
        super().close()

    def _open(self) -> BinaryIO:
        if self._file is None:
            path = self._folder / f"{self._name}.{len(self.pieces):0{_PLACES}}"
            self._file = path.open("wb")  # closed when the piece is full
        return self._file

    def _finish(self) -> None:
        if self._file is not None:
            self._file.close()
            self.pieces.append(Piece(Path(self._file.name).name, self._held, self._sum.hexdigest()))
            self._file, self._sum, self._held = None, hashlib.sha256(), 0


def write_sums(folder: Path, pieces: Iterable[Piece]) -> str:
    """SHA256SUMS of `pieces`; returns its own sha256."""
    text = "".join(f"{piece.digest}  {piece.name}\n" for piece in pieces)
    record.write_text(folder / SUMS, text)
    return record.digest_bytes(text.encode())
