"""The one error a user can cause, and the exit codes every command shares."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

GOOD, VERDICT_FAILED, WRONG_INPUT, NOT_AVAILABLE, INTERRUPTED = 0, 1, 2, 3, 130


class ConvkitError(Exception):
    """The user's input is wrong: what, where, and what to do about it (exit 2).

    Anything that is not a ConvkitError is a bug and keeps its traceback.
    """

    exit_code = WRONG_INPUT

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint
        self.printed = ""
        """What a step of a run had printed before it failed, where nobody saw it yet."""

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


def nearest(name: str, known: Iterable[str], otherwise: str) -> str:
    """The hint for a `name` that is not `known`: the one that was meant, as it seems, or `otherwise`."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise


class NotAvailableError(ConvkitError):
    """An engine or device is missing here; the hint is the line that installs it (exit 3)."""

    exit_code = NOT_AVAILABLE


class VerdictError(ConvkitError):
    """A gate, parity or accuracy verdict failed (exit 1)."""

    exit_code = VERDICT_FAILED
