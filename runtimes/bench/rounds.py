"""The order of a bench: in every round every candidate runs one block, in an order drawn anew.

Short rounds and many of them: what the machine's other tenants do then moves a candidate and its baseline alike, and
the ratio within a round holds where the times do not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from convkit.runtimes.bench.block import WINDOW, Block, BlockPlan

if TYPE_CHECKING:
    from convkit.runtimes.bench.clock import Clock
    from convkit.runtimes.bench.worker import Worker

FEWEST, MOST = 6, 100
"""Rounds: fewer give no interval, more than this no news."""
_LONGEST, _SHORTEST = 0.12, 0.06
_ROUNDS_AIMED_AT = 50

Rounds = tuple[tuple[Block, ...], ...]
"""[rounds][candidates], candidates in the order they were given."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to stop: after `budget` seconds of blocks, or as soon as `enough` of the rounds so far says so.

    At least FEWEST rounds are run, however long a call takes.
    """

    budget: float
    seed: int
    enough: Callable[[Rounds], bool] = lambda _rounds: False
    progress: Callable[[float], None] = lambda _share: None


def run_rounds(workers: Sequence[Worker], schedule: Schedule, clock: Clock) -> Rounds:
    """Time all `workers` side by side."""
    order = random.Random(schedule.seed)  # noqa: S311 - an order, no secret
    started = clock.now()
    plans = _plans(workers, schedule.budget)
    rounds: list[tuple[Block, ...]] = []
    while _goes_on(rounds, clock.now() - started, schedule):
        turns = order.sample(range(len(workers)), len(workers))
        blocks = {turn: workers[turn].time(plans[turn]) for turn in turns}
        rounds.append(tuple(blocks[turn] for turn in range(len(workers))))
        schedule.progress(min(1.0, (clock.now() - started) / schedule.budget))
    return tuple(rounds)


def _goes_on(rounds: Sequence[tuple[Block, ...]], spent: float, schedule: Schedule) -> bool:
    done = len(rounds)
    if done < FEWEST:
        return True
    if done >= MOST or spent * (done + 1) / done > schedule.budget:
        return False
    return done < _SURE or done % _CHECKED_EVERY != 0 or not schedule.enough(tuple(rounds))


_SURE, _CHECKED_EVERY = 20, 5
"""Few rounds, looked at often, would end a run whenever an interval is narrow by chance."""


def _plans(workers: Sequence[Worker], budget: float) -> list[BlockPlan]:
    """Blocks that fit some fifty rounds into the budget, and for slow models as many calls as fit FEWEST rounds.

    A first, unrecorded round tells how long a call takes.
    """
    seconds = min(_LONGEST, max(_SHORTEST, 0.6 * budget / (_ROUNDS_AIMED_AT * len(workers))))
    probe = BlockPlan(seconds=0.0, calls=1, warm_seconds=seconds / 2)
    call = [float(np.median(worker.time(probe).seconds)) for worker in workers]
    affordable = budget / FEWEST / sum(call)
    calls = max(1, min(_CALLS, int(affordable / 2)))
    warm = max(1.0, min(_WARM_CALLS, affordable - calls))
    window = WINDOW if warm >= 2 * WINDOW else 1
    bounds = (max(seconds / 2, warm * each) for each in call)
    return [BlockPlan(seconds=seconds, calls=calls, warm_seconds=bound, window=window) for bound in bounds]


_CALLS, _WARM_CALLS = 5, 9
