"""Others on the machine: what they take is seen, and widens what is said of a ratio."""

import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from convkit.runtimes.bench import estimate, waiting
from convkit.runtimes.bench.block import Block, BlockPlan, time_block
from convkit.runtimes.bench.clock import SystemClock
from convkit.runtimes.bench.rounds import Rounds


def rounds(waited: float) -> Rounds:
    """A candidate whose median call takes half of the baseline's, and whose least disturbed ones 0.6 of it."""
    own, base = np.array([6.0, 10.0, 10.0, 11.0]), np.array([10.0, 20.0, 20.0, 22.0])
    return ((Block(own, 1, steady=True, waiting=waited), Block(base, 1, steady=True)),) * 8


def test_where_others_had_the_cores_the_interval_takes_in_the_calls_disturbed_least() -> None:
    for waited, high in ((0.0, 0.5), (waiting.BUSY, 0.5), (0.5, 0.6)):
        ratio = estimate.statistics(rounds(waited), 0, 1, seed=0)[1]["p50"]
        assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.5, 0.5, high))
        assert estimate.statistics(rounds(waited), 1, 0, seed=0)[1]["p50"].low == pytest.approx(1 / max(high, 0.5))


class Spinning:
    """A session whose calls want a core and have to share it with the threads beside it."""

    inputs = outputs = ()

    def run(self, _inputs: object, _outputs: object = None) -> dict[str, np.ndarray]:
        end = time.thread_time() + 2e-3
        while time.thread_time() < end:
            pass
        return {}


def test_a_block_tells_how_many_threads_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([1.0, 1.0 + 3600.0])
    monkeypatch.setattr(waiting, "waited", lambda: next(told))
    block = time_block(Spinning(), [{}], SystemClock(), BlockPlan(0.0, 1, warm_seconds=0.0))  # type: ignore[arg-type]
    assert block.waiting > 100


@pytest.mark.skipif(not Path("/proc/self/schedstat").is_file(), reason="the system does not tell how long threads wait")
def test_more_busy_processes_than_cores_wait() -> None:
    """Python's threads share one lock, so processes of numpy's make the crowd; each product lets go of it."""
    stop, before = threading.Event(), waiting.waited()
    big = np.ones((400, 400))

    def work() -> None:
        while not stop.is_set():
            big @ big

    crowd = [threading.Thread(target=work) for _ in range(4 * (psutil.cpu_count() or 1))]
    for one in crowd:
        one.start()
    end = time.monotonic() + 30
    while (found := waiting.waited() - before) < 0.05 and time.monotonic() < end:
        time.sleep(0.05)
    stop.set()
    for one in crowd:
        one.join()
    assert found >= 0.05
