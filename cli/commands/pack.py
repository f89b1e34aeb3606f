"""Pack what a bare machine needs to run what was built here, in pieces with checksums."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from convkit.cli import options, show, values
from convkit.cli import output as place
from convkit.compress import record

if TYPE_CHECKING:
    from convkit.export.parcel import Entry, Parcel


@click.command
@click.argument("paths", nargs=-1, required=True, type=values.WORD, metavar="PATH...")
@click.option(
    "--wheels",
    multiple=True,
    type=values.WORD,
    metavar="FOLDER|FILE",
    help="Python packages to go along: a wheel, or a folder of them.",
)
@click.option(
    "--piece", type=values.Size(), default="15MB", show_default=True, metavar="SIZE", help="Size of a piece, at most."
)
@options.output
@options.json
def pack(*, paths: Sequence[str], wheels: Sequence[str], piece: int, output: str, as_json: bool) -> None:
    """Pack what a bare machine needs to run what was built here.

    PATHs are output folders of convkit, data, or whatever else the commands there read; what is inside the current
    folder is found at the same place there. OUTPUT gets the pieces, SHA256SUMS and unpack.sh, which takes a shell,
    sha256sum, cat and tar, and says which piece is missing or damaged.

    \b
    Examples:
      convkit pack out/float out/engine val.npz -o parcel/
      convkit pack out/engine val.npz --wheels wheels/ -o parcel/ --piece 50MB
      sh parcel/unpack.sh work/
    """
    from convkit.export import parcel, pieces

    entries = parcel.collect(paths, wheels, output)
    place.check(output)
    with record.output_folder(output) as folder:
        packed = parcel.write(entries, folder, piece)
        place.describe(folder, None, digests={pieces.SUMS: packed.digest})
    if as_json:
        show.json(packed.as_dict())
    else:
        _show(packed, output)
    _warn(packed.entries, wheels)


PART = pack


def _show(packed: Parcel, output: str) -> None:
    from convkit.export import parcel

    rows = [(name, files, size) for name, (files, size) in parcel.files_by_folder(packed.entries).items()]
    total = sum(entry.bytes for entry in packed.entries)
    show.table(("packed", "files", "bytes"), rows, totals=("total", len(packed.entries), total))
    show.text(f"{Path(output)}: {len(packed.pieces):,} pieces, {sum(piece.bytes for piece in packed.pieces):,} bytes")
    show.text(f"carry the whole folder over; there: sh {Path(output).name}/{parcel.UNPACK} FOLDER")


def _warn(entries: Sequence[Entry], wheels: Sequence[str]) -> None:
    """Wheels without convkit's own install everything but what the commands there begin with."""
    if wheels and not any(entry.path.name.startswith("convkit-") for entry in entries):
        show.warning("convkit's own wheel is not among the wheels; pip wheel --no-deps makes it of the checkout")
