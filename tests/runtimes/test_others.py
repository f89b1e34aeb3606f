"""Others on the machine: what they take is seen, and widens what is said of a ratio."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from convkit.runtimes.bench import estimate, others
from convkit.runtimes.bench.block import Block, BlockPlan, time_block
from convkit.runtimes.bench.clock import SystemClock
from convkit.runtimes.bench.rounds import Rounds


def rounds(waited: float) -> Rounds:
    """A candidate whose median call takes half of the baseline's, and whose least disturbed ones 0.6 of it."""
    own, base = np.array([6.0, 10.0, 10.0, 11.0]), np.array([10.0, 20.0, 20.0, 22.0])
    return ((Block(own, 1, steady=True, others=waited), Block(base, 1, steady=True)),) * 8


def test_where_others_had_the_cores_the_interval_takes_in_the_calls_disturbed_least() -> None:
    for waited, high in ((0.0, 0.5), (others.BUSY, 0.5), (0.5, 0.6)):
        ratio = estimate.statistics(rounds(waited), 0, 1, seed=0)[1]["p50"]
        assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.5, 0.5, high))
        assert estimate.statistics(rounds(waited), 1, 0, seed=0)[1]["p50"].low == pytest.approx(1 / max(high, 0.5))


class Session:
    """One whose call takes no time to speak of."""

    inputs = outputs = ()

    def run(self, _inputs: object, _outputs: object = None) -> dict[str, np.ndarray]:
        return {}


@pytest.mark.parametrize(
    ("waited", "own", "everybody", "taken"),
    [
        pytest.param(3.0, 1.0, 5.0, 1.5, id="they waited for less than others had"),
        pytest.param(9.0, 1.0, 5.0, 2.0, id="its own threads waited for each other too"),
        pytest.param(9.0, 2.0, 2.0, 0.0, id="nobody else ran"),
        pytest.param(0.0, 0.5, 7.0, 0.0, id="others ran on cores that were left"),
    ],
)
def test_a_block_tells_what_others_had_as_far_as_it_waited(
    monkeypatch: pytest.MonkeyPatch, waited: float, own: float, everybody: float, taken: float
) -> None:
    told = iter([others.Moment(0.0, 0.0, 0.0, 0.0), others.Moment(2.0, waited, own, everybody)])
    monkeypatch.setattr(others, "moment", lambda: next(told))
    block = time_block(Session(), [{}], SystemClock(), BlockPlan(0.0, 1, warm_seconds=0.0))  # type: ignore[arg-type]
    assert block.others == taken


# Linux alone tells how long threads wait; elsewhere nothing is said of others, which has no case to test.
@pytest.mark.skipif(not Path("/proc/self/schedstat").is_file(), reason="the system does not tell how long threads wait")
def test_processes_that_want_the_same_core_are_seen() -> None:
    """Two that never sleep, on the one core that this process is left: about half a core each is what both get."""
    script = (
        "import os, sys; from convkit.runtimes.bench import others\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "rival = os.fork()\n"
        "while not rival: pass\n"
        "start = others.moment()\n"
        "while (end := others.moment()).clock < start.clock + 1: sum(range(10000))\n"
        "os.kill(rival, 9); print(others.cores(start, end))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) > others.BUSY
