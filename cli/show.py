"""The only printer: results to stdout, everything else to stderr, colour and movement only where a person looks."""

from __future__ import annotations

import contextlib
import itertools
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from convkit.cli import layout
from convkit.cli.progress import Progress
from convkit.compress import record

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status
    from rich.table import Table

    from convkit.compress.errors import ConvkitError

_NUMBER = re.compile(r"[-+±]?\d[\d,]*(\.\d+)?(e[-+]?\d+)? ?[%×A-Za-z/]{0,5}( \(.*\))?|[–-]?")
"""A figure with its unit, or nothing."""
_QUIET_SECONDS = 5.0
_WIDE = 1000
"""Columns where nobody looks: a pipe gets whole lines, not a terminal's."""


def table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "", totals: Sequence[object] = ()
) -> None:
    """A table on stdout: numbers to the right, words to the left; `totals` is a last row set apart.

    Where it is wider than the terminal, words are folded and the columns come in blocks, each with the first column.
    """
    console = _console(sys.stdout)
    if title:
        console.print(_cell(title), style="bold", highlight=False)
    right = [_all_numbers(row[index] for row in rows) for index in range(len(columns))]
    body = [[_cell(cell) for cell in row] for row in rows]
    foot = [_cell(cell) for cell in totals]
    figures = [max((len(_cell(row[i])) for row in rows if _is_number(row[i])), default=0) for i in range(len(columns))]
    for block in layout.blocks(columns, [*body, foot] if foot else body, figures, console.width):
        console.print(_grid(block, columns, body, foot, right), end="\n\n" if block.widths else "\n")


def _grid(
    block: layout.Block, columns: Sequence[str], body: Sequence[list[str]], foot: list[str], right: Sequence[bool]
) -> Table:
    from rich import box
    from rich.table import Table

    loose = not block.widths
    grid = Table(box=box.SIMPLE_HEAD, show_edge=loose, pad_edge=loose, padding=(0, 1) if loose else (0, 1, 0, 0))
    for index, width in itertools.zip_longest(block.columns, block.widths):
        grid.add_column(columns[index], justify="right" if right[index] else "left", overflow="fold", width=width)
    for row in body:
        grid.add_row(*(row[index] for index in block.columns))
    if foot:
        grid.add_section()
        grid.add_row(*(foot[index] for index in block.columns), style="bold")
    return grid


def json(value: object) -> None:
    """A value as JSON on stdout."""
    sys.stdout.write(record.to_json(value))


def text(words: str) -> None:
    """Words on stdout, as they are."""
    sys.stdout.write(words.rstrip("\n") + "\n")


def again(printed: str) -> None:
    """What a command printed before, with its colours where they can be shown."""
    from rich.text import Text

    _console(sys.stdout).print(Text.from_ansi(printed), end="")


def note(words: str) -> None:
    """A line for the person who waits, on stderr."""
    _console(sys.stderr).print(words, style="dim", markup=False, highlight=False)


def warning(words: str) -> None:
    """Something the user should know, on stderr."""
    _console(sys.stderr).print(f"warning: {words}", style="yellow", markup=False, highlight=False)


def error(problem: ConvkitError | str) -> None:
    """The one line a user gets for wrong input, on stderr."""
    line = " ".join(str(problem).split())
    _console(sys.stderr).print(f"error: {line}", style="red", markup=False, highlight=False)


def bug() -> None:
    """The traceback of the exception being handled, on stderr."""
    traceback.print_exc()


@contextlib.contextmanager
def progress(what: str) -> Iterator[Progress]:
    """Show on stderr that `what` goes on; the Progress it gives says how far, and what was found.

    A terminal gets one moving line with the last picture under it, a pipe or a CI log one line for each thing said;
    what differs from the last one only in its numbers is said again after a while. What was found is a line in both.
    """
    console, start = _console(sys.stderr), time.monotonic()
    if console.is_terminal:
        with console.status(what) as status:
            yield _moving(status, what)
    else:
        note(f"{what} …")
        yield Progress(_sparing(start), lambda words: note(f"  {words}"))
    note(f"{what}: {time.monotonic() - start:.1f} s")


def _sparing(start: float) -> Callable[[str], None]:
    said, at = "", start

    def say(words: str) -> None:
        nonlocal said, at
        now, kind = time.monotonic(), re.sub(r"\d+", "", words)
        if kind != said or now - at >= _QUIET_SECONDS:
            said, at = kind, now
            note(f"  {words}")

    return say


def _moving(status: Status, what: str) -> Progress:
    from rich.markup import escape

    said, shown = "", ""

    def move() -> None:
        below = f"\n{escape(shown)}" if shown else ""
        status.update(f"{escape(what)} [dim]{escape(said)}{below}[/dim]")

    def say(words: str) -> None:
        nonlocal said
        said = words
        move()

    def picture(drawn: str) -> None:
        nonlocal shown
        shown = drawn
        move()

    def found(words: str) -> None:
        status.console.print(f"  {words}", style="dim", markup=False, highlight=False)

    return Progress(say, found, picture)


def _console(stream: object) -> Console:
    """A console on today's sys.stdout or sys.stderr (tests and pipes replace them)."""
    from rich.console import Console

    console = Console(stderr=stream is sys.stderr)
    return console if console.is_terminal else Console(stderr=stream is sys.stderr, width=_WIDE)


def _all_numbers(cells: Iterable[object]) -> bool:
    found = [_is_number(cell) for cell in cells]
    return bool(found) and all(found)


def _is_number(cell: object) -> bool:
    return isinstance(cell, (int, float)) or (isinstance(cell, str) and bool(_NUMBER.fullmatch(cell)))


def _cell(cell: object) -> str:
    from rich.markup import escape

    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return escape("" if cell is None else str(cell))
