"""The Profile: what each build takes as a whole and by node, measured side by side.

A profiler costs time of its own and others on the machine cost more, so a build's nodes are scaled to what it takes
without a profiler, round by round: a slow moment cancels.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from convkit.runtimes.bench.block import Block, BlockPlan
from convkit.runtimes.bench.clock import Clock, SystemClock
from convkit.runtimes.bench.worker import Inputs, Worker
from convkit.runtimes.latency.disturbance import STEADY, spread
from convkit.runtimes.session import NodeTime

FEWEST = 5
"""Rounds."""
LONGER = 1.5
_REPEATS, _FEWEST_REPEATS, _PROFILED = 20, 3, 0.5
"""Calls of a profile: as many as take these seconds, within bounds. What rounds there are tell more than calls do."""
_QUICK = 0.25
"""Quantile of a block's calls: others on the machine only ever add to a time."""
_OF_MEDIAN = 1.2533
"""Standard error of a median over that of a mean, of normal numbers."""
_CALLS, _BLOCK, _WARM = 5, 0.06, 0.03

Node = tuple[str, tuple[str, ...]]
"""An executed node's own name, and the names in the file that it stands for."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One build: seconds a call without a profiler, and of each node; these sum to it.

    `spread`: relative standard deviation, between rounds, of the build's time by the first one's; `noise`: that of the
    median of all rounds.
    """

    seconds: float
    nodes: Mapping[Node, float]
    spread: float = 0.0
    noise: float = 0.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """`budget`: seconds of measuring all builds together, up to LONGER times as long while rounds differ much."""

    budget: float = 40.0
    seed: int = 0
    clock: Clock = field(default_factory=SystemClock)
    progress: Callable[[float], None] = lambda _share: None


def profile(workers: Sequence[Worker], inputs: Inputs, schedule: Schedule) -> list[Profile]:
    """Profiles of the builds that `workers` have open and prepared, in their order.

    Seconds of the first are its own; those of the others are told by their ratio to the first within rounds.
    """
    order, clock = random.Random(schedule.seed), schedule.clock  # noqa: S311 - an order, no secret
    started = clock.now()
    timed: list[list[Block]] = [[] for _ in workers]
    nodes: list[list[dict[Node, float]]] = [[] for _ in workers]
    while _goes_on(len(timed[0]), clock.now() - started, schedule.budget * _patience(timed)):
        for turn in order.sample(range(len(workers)), len(workers)):
            timed[turn].append(workers[turn].time(BlockPlan(seconds=_BLOCK, calls=_CALLS, warm_seconds=_WARM)))
            repeats = _repeats(timed[turn][-1])
            nodes[turn].append(_shares(workers[turn].profile(inputs, repeats)))
        schedule.progress(min(1.0, (clock.now() - started) / schedule.budget))
    ratios, rounds = _ratios(timed), len(timed[0])
    found = []
    for row, shares in zip(ratios, nodes, strict=True):
        total = _typical_seconds(timed[0]) * float(np.median(row))
        own = spread(row.tolist())
        found.append(Profile(total, _typical(shares, total), own, own * _OF_MEDIAN / math.sqrt(rounds)))
    return found


def _repeats(block: Block) -> int:
    return max(_FEWEST_REPEATS, min(_REPEATS, int(_PROFILED / np.quantile(block.seconds, _QUICK))))


def _patience(timed: Sequence[Sequence[Block]]) -> float:
    """How much longer than its budget a measurement may take: it is worth it where rounds differ."""
    if len(timed[0]) < FEWEST:
        return 1.0
    return LONGER if max(spread(row.tolist()) for row in _ratios(timed)) > STEADY else 1.0


def _goes_on(rounds: int, spent: float, budget: float) -> bool:
    return rounds < FEWEST or spent * (rounds + 1) / rounds <= budget


def _shares(times: Sequence[NodeTime]) -> dict[Node, float]:
    """Each node's share of the profile's time."""
    whole = sum(node.quick for node in times)
    shares: dict[Node, float] = {}
    for node in times:
        key = node.name, node.origins
        # An engine that counts microseconds may find none.
        shares[key] = shares.get(key, 0.0) + (node.quick / whole if whole else 1 / len(times))
    return shares


def _typical_seconds(blocks: Sequence[Block]) -> float:
    return float(np.median([np.quantile(block.seconds, _QUICK) for block in blocks]))


def _ratios(timed: Sequence[Sequence[Block]]) -> np.ndarray:
    """Time of each build over the first one's [builds, rounds]."""
    typical = np.array([[np.quantile(block.seconds, _QUICK) for block in blocks] for blocks in timed])
    return np.asarray(typical / typical[0])


def _typical(rounds: Sequence[Mapping[Node, float]], total: float) -> dict[Node, float]:
    """Median over rounds of each node's share, scaled to `total`."""
    names = dict.fromkeys(name for found in rounds for name in found)
    typical = {name: float(np.median([found.get(name, 0.0) for found in rounds])) for name in names}
    scale = total / sum(typical.values())
    return {name: share * scale for name, share in typical.items()}
