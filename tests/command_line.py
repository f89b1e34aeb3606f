"""What the `convkit` fixture is: a command line called as a function."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """What a command line gave back."""

    code: int
    out: str
    err: str


Convkit = Callable[..., Result]


def refused(done: Result, said: str) -> None:
    """It is the user's error, in one line, and nothing is left in the folder `out`."""
    assert done.code == 2, done.err
    assert said in done.err
    assert sum(line.startswith("error: ") for line in done.err.splitlines()) == 1
    assert "Traceback" not in done.err
    assert done.out == ""
    assert not Path("out").exists()
