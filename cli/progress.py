"""The Progress of long work as the worker sees it: what goes on, what was found, and a picture that grows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _nothing(_words: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Progress:
    """Called with words that say how far it is; `found` gets a line that stays, `picture` what takes the place of the
    last one where there is a terminal to show it."""

    say: Callable[[str], None] = _nothing
    found: Callable[[str], None] = _nothing
    picture: Callable[[str], None] = _nothing

    def __call__(self, words: str) -> None:
        """How far it is."""
        self.say(words)
