"""Waiting: how long threads of this process stood ready to run while others had the cores.

A ratio holds on a shared machine as long as both sides are slowed alike. Where threads are taken off their core in the
middle of a call they are not: a short call often ends before that, a long one never does.
"""

from __future__ import annotations

from pathlib import Path

BUSY = 0.1
"""Threads waiting at a time, on average, from which on a ratio is no longer sure."""
_TASKS = Path("/proc/self/task")


def waited() -> float:
    """Seconds so far, all threads that live taken together; 0 where the system does not tell (Linux does)."""
    return sum(map(_delay, _TASKS.iterdir())) / 1e9 if _TASKS.is_dir() else 0.0


def _delay(task: Path) -> int:
    """Nanoseconds in the run queue: the second field of schedstat."""
    try:
        return int((task / "schedstat").read_text().split()[1])
    except (OSError, IndexError, ValueError):  # the thread has ended, or the kernel keeps no such statistics
        return 0
