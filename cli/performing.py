"""A step performed: the command of its name in this process, and what is kept of it."""

from __future__ import annotations

import contextlib
import io
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
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
            told = type(error)(f"step {step.name}: {error.message}", hint=error.hint)
            told.printed = copy.getvalue()
            raise told from error
    if code not in {None, GOOD}:
        return int(code)
    done = Done(digest, tuple(typed), copy.getvalue())
    book.write(step, done)
    return done


@dataclass(frozen=True, slots=True)
class Performed:
    """What came of a step on another machine: done, or an exit code; what it printed, and its warnings."""

    done: Done | None
    code: int
    printed: str
    warned: tuple[str, ...] = ()


def perform_there(step: Step, book: Journal, digest: str, token: str, goes_on: bool) -> Performed:
    """The step performed on a machine whose standard output nobody sees.

    It waits for a process that still does the same step, one that was given up, and takes what that has done. Raises
    ConvkitError where the machine has not the folder that the run has, in which it left its `token`.
    """
    if book.token() != token:
        where, hint = book.output.absolute(), "machines of a cluster share a file system"
        raise ConvkitError(f"{socket.gethostname()} does not see {where}", hint=hint)
    told = io.StringIO()
    with book.alone(step):
        known = book.done(step, digest) if goes_on else None
        if known is not None:
            return Performed(known, GOOD, known.printed)
        if not goes_on:
            book.forget(step)
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(told):
            try:
                found = perform(step, book, digest, quiet=False, resume=goes_on)
            except SystemExit as left:  # a user's own module may
                found = left.code if isinstance(left.code, int) else 1
    warned = tuple(line for line in told.getvalue().splitlines() if line.startswith("warning:"))
    if isinstance(found, Done):
        return Performed(found, GOOD, found.printed, warned)
    return Performed(None, found, printed.getvalue(), warned)


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
