"""Others: the cores that other programs have while threads of this process stand ready and wait for one.

A ratio holds on a shared machine as long as both sides are slowed alike. Where threads are taken off their core in the
middle of a call they are not: a short call often ends before that, a long one never does.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

BUSY = 0.2
"""Cores that others have from which on a ratio is no longer sure."""
_TASKS = Path("/proc/self/task")


@dataclass(frozen=True, slots=True)
class Moment:
    """Seconds: of the clock, that threads of this process have waited, that it and those beside it ran (its parent's
    other children: threads of an engine spin on for a while when it is another one's turn), and that all processes ran.
    """

    clock: float
    waited: float
    own: float
    all: float


def moment() -> Moment:
    """Now."""
    import psutil

    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    waited = sum(map(_delay, _TASKS.iterdir())) / 1e9 if _TASKS.is_dir() else 0.0
    return Moment(time.perf_counter(), waited, time.process_time() + _beside(), sum(times) - idle)


def cores(start: Moment, end: Moment) -> float:
    """Cores that others had between the two, as far as threads here waited for them: an engine's own threads may wait
    for each other. A short time is told to a tick of the system and may be below 0, so take the mean of many; 0 where
    the system does not tell how long threads wait (Linux does).
    """
    taken = (end.all - start.all) - (end.own - start.own)
    return min(end.waited - start.waited, taken) / (end.clock - start.clock)


def _beside() -> float:
    """Seconds that the parent of this process, and its other children, ran."""
    import psutil

    found = 0.0
    with contextlib.suppress(psutil.Error):  # one may end as it is looked at
        parent = psutil.Process().parent()
        for process in () if parent is None else (parent, *parent.children()):
            if process.pid != os.getpid():
                times = process.cpu_times()
                found += times.user + times.system
    return found


def _delay(task: Path) -> int:
    """Nanoseconds in the run queue: the second field of schedstat."""
    try:
        return int((task / "schedstat").read_text().split()[1])
    except (OSError, IndexError, ValueError):  # the thread has ended, or the kernel keeps no such statistics
        return 0
