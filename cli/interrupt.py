"""Ctrl-C and SIGTERM: both end a command in order, what is staged removed and what is finished kept."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import FrameType

_seen: list[int] = []


class Interrupt(KeyboardInterrupt):
    """What a signal raises. A type of its own: where a plain KeyboardInterrupt passes through an extension module's
    code, Python 3.11 ends the process by the signal, whatever exit code main gives.
    """


def install() -> None:
    """From here on both signals raise Interrupt, and are remembered."""
    _seen.clear()
    with contextlib.suppress(ValueError):  # only the main thread may, and only there it is needed
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _interrupt)


def check() -> None:
    """Raise Interrupt if a signal came: a library that was being imported may have swallowed it."""
    if _seen:
        raise Interrupt


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    _seen.append(number)
    raise Interrupt
