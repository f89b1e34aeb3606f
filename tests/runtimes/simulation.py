"""A whole bench on a virtual clock: the code that measures and judges is the real one, only time is not.

`noise_calm.npy` is what a conv net's calls really took in ONNX Runtime, two minutes without a pause on a shared
two-core machine (microseconds, uint32): jitter of calls, stalls, and drift of some percent over seconds.
`noise_contended.npy` is one minute of the same in which another process takes the cores for nineteen seconds and calls
take three times as long.
"""

from bisect import bisect_right
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from convkit.runtimes.bench.candidate import Candidate
from convkit.runtimes.bench.clock import VirtualClock
from convkit.runtimes.bench.measure import Measurement, Settings, Workbench, measure
from convkit.runtimes.bench.worker import InlineWorker, Worker
from convkit.runtimes.null import NullSession


@cache
def recorded(name: str) -> tuple[list[float], list[float]]:
    """(when each recorded call ended, how long it took relative to the median)."""
    seconds = np.load(Path(__file__).parent / f"noise_{name}.npy") * 1e-6
    return np.cumsum(seconds).tolist(), (seconds / np.median(seconds)).tolist()


def noise(name: str, offset: float) -> Callable[[float], float]:
    """How slow the machine is at a moment: the recording from `offset` seconds on, in a circle."""
    ends, factors = recorded(name)
    return lambda now: factors[min(bisect_right(ends, (now + offset) % ends[-1]), len(factors) - 1)]


def run(seconds: dict[str, float], trace: str, trial: int) -> tuple[Measurement, float]:
    """Measure candidates of fixed times under recorded noise; also the seconds that would have taken."""
    clock = VirtualClock()
    offset = float(np.random.default_rng(trial).uniform(0, recorded(trace)[0][-1]))
    slowness = noise(trace, offset)

    def open_worker(candidate: Candidate) -> Worker:
        return InlineWorker(NullSession(seconds[candidate.name], clock, slowness), clock)

    candidates = [Candidate(name, "null", "10ms") for name in seconds]
    measurement = measure(candidates, settings=Settings(seed=trial), workbench=Workbench(clock, open_worker))
    return measurement, clock.now()
