"""One block: a candidate runs alone, warms up until steady, then every call is timed."""

from __future__ import annotations

import gc
import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from convkit.runtimes.bench import others
from convkit.runtimes.session import OnDevice, nvml

if TYPE_CHECKING:
    from convkit.runtimes.bench.clock import Clock
    from convkit.runtimes.session import Session

WINDOW = 3
"""Calls whose median is compared with that of the calls before; 1 where calls are too slow for more."""


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """How long a block lasts: at least `seconds` and `calls` timed calls, at most `most` calls.

    Warm-up ends when the medians of two successive windows differ by less than `tolerance` (relative), and after
    `warm_seconds` in any case. A GPU's clocks must stand still as well, over `apart` seconds, for a GPU says the same
    of itself for a while; calls that are steady go on for `device_seconds` at most for that.
    """

    seconds: float = 0.25
    calls: int = 5
    most: int = 1000
    warm_seconds: float = 0.15
    device_seconds: float = 2.0
    apart: float = 0.1
    tolerance: float = 0.05
    window: int = WINDOW


@dataclass(frozen=True, slots=True)
class Block:
    """Seconds of every timed call [calls], and how many calls it took to get steady (or not to). `gpu`: what the GPU
    said of itself at the end, None for engines on the CPU. `others`: cores that other programs had meanwhile, as far as
    threads here waited for them.
    """

    seconds: np.ndarray
    warm_up: int
    steady: bool
    gpu: nvml.Reading | None = None
    others: float = 0.0


def time_block(session: Session, samples: Sequence[Mapping[str, np.ndarray]], clock: Clock, plan: BlockPlan) -> Block:
    """Run `session` on `samples` in turn; outputs are computed and handed over each time, if only within the device
    whose own clock tells the time."""
    turn = itertools.cycle(samples)
    collecting = gc.isenabled()
    gc.disable()  # a collection inside a call would be billed to the engine
    try:
        warm_up, steady = _warm_up(session, turn, clock, plan)
        before = others.moment()
        seconds = _timed(session, turn, clock, plan)
        taken = others.cores(before, others.moment())
    finally:
        if collecting:
            gc.enable()
    return Block(np.array(seconds), warm_up, steady, _reading(session), taken)


def _warm_up(
    session: Session, turn: Iterator[Mapping[str, np.ndarray]], clock: Clock, plan: BlockPlan
) -> tuple[int, bool]:
    """Calls it took, and whether they became steady: others have emptied caches and put thread pools to sleep."""
    seconds: list[float] = []
    started, clocks = clock.now(), _reading(session)
    looked, longest = started, max(plan.warm_seconds, plan.device_seconds)
    while True:
        seconds.append(_call(session, next(turn), clock))
        steady = _steady(seconds, plan)
        if steady and clocks is None:
            return len(seconds), True
        if steady and clock.now() - looked >= plan.apart:
            now, last = _reading(session), clocks
            if nvml.settled(last, now):
                return len(seconds), True
            clocks, looked = now, clock.now()
        if clock.now() - started >= (longest if steady else plan.warm_seconds):
            return len(seconds), False


def _steady(seconds: Sequence[float], plan: BlockPlan) -> bool:
    if len(seconds) < 2 * plan.window:
        return False
    before = statistics.median(seconds[-2 * plan.window : -plan.window])
    return abs(statistics.median(seconds[-plan.window :]) - before) <= plan.tolerance * before


def _timed(session: Session, turn: Iterator[Mapping[str, np.ndarray]], clock: Clock, plan: BlockPlan) -> list[float]:
    seconds: list[float] = []
    started = clock.now()
    while len(seconds) < plan.most and (len(seconds) < plan.calls or clock.now() - started < plan.seconds):
        seconds.append(_call(session, next(turn), clock))
    return seconds


def _reading(session: Session) -> nvml.Reading | None:
    return session.reading() if isinstance(session, OnDevice) else None


def _call(session: Session, inputs: Mapping[str, np.ndarray], clock: Clock) -> float:
    if isinstance(session, OnDevice):
        return session.timed(inputs)
    started = clock.now()
    session.run(inputs)
    return clock.now() - started
