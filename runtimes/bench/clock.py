"""Clocks: the system's, and one that only moves when something sleeps on it, so that hours of measuring can be
simulated in seconds."""

import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Seconds since some fixed moment."""

    def now(self) -> float:
        """Monotonic seconds."""

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""


class SystemClock:
    """The machine's monotonic clock of highest resolution."""

    def now(self) -> float:
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(slots=True)
class VirtualClock:
    """Moves by what is slept and by nothing else."""

    seconds: float = 0.0

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
