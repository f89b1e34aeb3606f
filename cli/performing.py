"""A step performed: the command of its name in this process, and what is kept of it."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import TextIO

from convkit.cli.journal import Done, Journal
from convkit.cli.step import Step, words
from convkit.compress.errors import GOOD, ConvkitError


def perform(step: Step, book: Journal, digest: str, *, quiet: bool, resume: bool) -> Done | int:
    """What is done, and kept in the book as of this `digest`; else the exit code that the command gave.

    Raises ConvkitError that names the step.
    """
    from convkit.cli.main import CLI

    typed = [step.command, *words(step, book.needed(step), book.folder(step), resume=resume)]
    with _copied(quiet=quiet) as copy:
        try:
            code = CLI.main(typed, prog_name="convkit", standalone_mode=False)
        except ConvkitError as error:
            raise type(error)(f"step {step.name}: {error.message}", hint=error.hint) from error
    if code not in {None, GOOD}:
        return int(code)
    done = Done(digest, tuple(typed), copy.getvalue())
    book.write(step, done)
    return done


def perform_there(step: Step, book: Journal, digest: str, goes_on: bool) -> Done | int:
    """The same on another machine, whose standard output nobody sees."""
    return perform(step, book, digest, quiet=True, resume=goes_on)


class _Copy(io.StringIO):
    """Standard output that also keeps what passes through; silent when `through` is None."""

    def __init__(self, through: TextIO | None) -> None:
        super().__init__()
        self._through = through

    def write(self, text: str) -> int:
        if self._through:
            self._through.write(text)
        return super().write(text)

    def flush(self) -> None:
        if self._through:
            self._through.flush()

    def isatty(self) -> bool:
        return self._through is not None and self._through.isatty()


@contextlib.contextmanager
def _copied(*, quiet: bool) -> Iterator[_Copy]:
    copy = _Copy(None if quiet else sys.stdout)
    with contextlib.redirect_stdout(copy):
        yield copy
