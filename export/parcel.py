"""The Parcel: what a machine with nothing but a shell needs to run what was built here, in pieces with checksums."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from convkit.compress import record
from convkit.compress.errors import ConvkitError
from convkit.export import pieces
from convkit.export.pieces import Piece

ARCHIVE, UNPACK, WHEELS = "pack.tar", "unpack.sh", "wheels"
MOST = 10_000
"""Pieces that their numbers have digits for."""
_SUMS = "@SUMS@"
"""Where unpack.sh has the digest of SHA256SUMS: so a list that was cut short is found out too."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file under the name it gets where it is unpacked; `link`: what it leads to there, where it is a link."""

    name: str
    path: Path
    bytes: int
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Parcel:
    """What was packed, and into which pieces."""

    entries: tuple[Entry, ...]
    pieces: tuple[Piece, ...]
    digest: str

    def as_dict(self) -> dict[str, Any]:
        """JSON of it; `digest`: the sha256 of the list of checksums, and so of everything."""
        return {
            "schema_version": 1,
            "digest": self.digest,
            "files": {entry.name: entry.bytes for entry in self.entries},
            "pieces": {piece.name: {"bytes": piece.bytes, "digest": piece.digest} for piece in self.pieces},
        }


def collect(paths: Sequence[str], wheels: Sequence[str], output: str) -> tuple[Entry, ...]:
    """Everything that `paths` and `wheels` name, sorted. Raises ConvkitError for what cannot be packed.

    What is inside the current folder keeps its place, so the same commands find it there; what is not keeps its name
    alone. `wheels`, files or folders of them, go to wheels/.
    """
    found: dict[str, Entry] = {}
    for path in paths:
        _check_apart(Path(path), Path(output))
        _add(found, path, _tree(Path(path), _place(Path(path))))
    for path in wheels:
        _add(found, path, _wheels(Path(path)))
    return tuple(found[name] for name in sorted(found))


def write(entries: Iterable[Entry], folder: Path, size: int) -> Parcel:
    """The pieces of `entries`, of `size` bytes, their checksums, and the script that unpacks them, in `folder`.

    The same entries give the same bytes: neither times nor owners are kept. Nothing is compressed: engines, weights and
    wheels hardly shrink, and to join and unpack them takes no more than cat and tar.
    """
    entries = tuple(entries)
    _check_count(sum(entry.bytes for entry in entries), size)
    with (
        pieces.Splitter(folder, ARCHIVE, size) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT) as archive,
    ):
        for entry in entries:
            _write(archive, entry)
    digest = pieces.write_sums(folder, stream.pieces)
    script = folder / UNPACK
    record.write_text(script, Path(__file__).with_name(UNPACK).read_text().replace(_SUMS, digest))
    script.chmod(0o755)
    return Parcel(entries, tuple(stream.pieces), digest)


def _check_count(total: int, size: int) -> None:
    if total / size > MOST:
        hint = f"give --piece {-(-total // MOST // 10**6) or 1}MB or more"
        raise ConvkitError(f"{total:,} bytes in pieces of {size:,} are more than {MOST:,} pieces", hint=hint)


def _write(archive: tarfile.TarFile, entry: Entry) -> None:
    header = tarfile.TarInfo(entry.name)
    if entry.link is not None:
        header.type, header.linkname = tarfile.SYMTYPE, entry.link
        archive.addfile(header)
        return
    with _opened(entry.path) as file:
        now = os.fstat(file.fileno())
        header.size, header.mode = now.st_size, 0o755 if now.st_mode & stat.S_IXUSR else 0o644
        try:
            archive.addfile(header, file)
        except OSError as error:
            if error.errno is not None:  # the disk's; tarfile's own, for a file that ends too soon, has no number
                raise
            raise ConvkitError(f"{entry.path} changed while it was packed", hint="pack when nothing writes") from error


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise ConvkitError(f"cannot read {path}: {error.strerror}") from error


def _add(found: dict[str, Entry], given: str, entries: Iterable[Entry]) -> None:
    """`entries` to those that are `found`; the same file may be given twice, two for one place may not."""
    listed = list(entries)
    if not listed:
        raise ConvkitError(f"{given} holds no file", hint="give the output folders of convkit, and data")
    for entry in listed:
        other = found.setdefault(entry.name, entry)
        if other.path.resolve() != entry.path.resolve():
            raise ConvkitError(f"{other.path} and {entry.path} would both be {entry.name}", hint="rename one of them")
        if not entry.name.isprintable():
            raise ConvkitError(f"the name of {str(entry.path)!r} cannot be printed", hint="rename it")


def _check_apart(path: Path, output: Path) -> None:
    """The pieces are not packed into themselves."""
    one, other = path.resolve(), record.final_place(output).resolve()
    if one == other or one in other.parents or other in one.parents:
        raise ConvkitError(f"output {output} and {path}, which is packed, hold each other", hint="give another folder")


def _place(path: Path) -> PurePosixPath:
    """What `path` is called where it is unpacked."""
    place = Path(os.path.normpath(path.absolute()))
    here = Path.cwd()
    if place.is_relative_to(here):
        return PurePosixPath(place.relative_to(here).as_posix())
    return PurePosixPath(place.name)


def _tree(top: Path, place: PurePosixPath) -> Iterator[Entry]:
    """`top`, a file, or all files in it; `top` itself may be a link, those in it may not lead out of it."""
    if not top.exists():
        raise ConvkitError(f"there is no {top}", hint="give the output folders of convkit, and data")
    if not top.is_dir():
        yield _file(top, place)
        return
    for root, folders, files in os.walk(top, onerror=_refuse):
        links = [name for name in folders if Path(root, name).is_symlink()]
        for name in (*files, *links):
            path = Path(root, name)
            below = place / PurePosixPath(path.relative_to(top).as_posix())
            yield _link(path, below, top) if path.is_symlink() else _file(path, below)


def _refuse(error: OSError) -> None:
    raise ConvkitError(f"cannot read {error.filename}: {error.strerror}") from error


def _file(path: Path, place: PurePosixPath) -> Entry:
    if not path.is_file():
        raise ConvkitError(f"{path} is neither a file nor a folder", hint="leave it out")
    return Entry(str(place), path, path.stat().st_size)


def _link(path: Path, place: PurePosixPath, top: Path) -> Entry:
    """A link stays one, relative whatever it was: an absolute one leads nowhere on another machine."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise ConvkitError(f"the link {path} leads nowhere", hint="remove it") from error
    if not target.is_relative_to(top.resolve()):
        raise ConvkitError(
            f"the link {path} leads outside {top}, to {target}", hint="put what it leads to in its place"
        )
    return Entry(str(place), path, 0, os.path.relpath(target, path.parent.resolve()))


def _wheels(path: Path) -> Iterator[Entry]:
    """The wheel `path`, or all that are in it; pip there can build nothing, so there is nothing else."""
    if not path.exists():
        raise ConvkitError(f"there are no wheels in {path}", hint="pip wheel and pip download put them there")
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        if file.suffix != ".whl":
            raise ConvkitError(
                f"{file} is no wheel", hint="leave it out; `pip wheel --no-deps` makes one of a source archive"
            )
        yield _file(file, PurePosixPath(WHEELS, file.name))


def files_by_folder(entries: Iterable[Entry]) -> Mapping[str, tuple[int, int]]:
    """(files, bytes) by the folder that they are in; a file at the top stands for itself."""
    found: dict[str, tuple[int, int]] = {}
    for entry in entries:
        folder = str(PurePosixPath(entry.name).parent)
        key = entry.name if folder == "." else f"{folder}/"
        count, size = found.get(key, (0, 0))
        found[key] = count + 1, size + entry.bytes
    return found
