"""What the `convkit` fixture is: a command line called as a function."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """What a command line gave back."""

    code: int
    out: str
    err: str


Convkit = Callable[..., Result]
