"""What timed blocks say: quantiles, ratios to the baseline, and how sure they are.

Calls within a block share the state of the machine, so they are no independent samples: every interval comes from a
bootstrap over rounds (a cluster bootstrap; Davison & Hinkley, Bootstrap Methods and their Application, 1997, §3.8),
which keeps blocks whole and a candidate's block beside its baseline's. Percentile intervals, 95 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from convkit.runtimes.bench.others import BUSY

if TYPE_CHECKING:
    from convkit.runtimes.bench.rounds import Rounds

RESAMPLES = 1000
TAIL = 0.025
_CELLS = 4_000_000
"""Resamples × calls that are held at a time."""

QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the 95 % interval around it; a point where nothing is uncertain."""

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """Half the interval, relative to the value."""
        return (self.high - self.low) / 2 / abs(self.value) if self.value else 0.0


def point(value: float) -> Interval:
    """A value that was not sampled, such as a size."""
    return Interval(value, value, value)


def paired_ratio(seconds: np.ndarray, baseline: np.ndarray, seed: int) -> Interval:
    """Median over rounds of the ratio of two candidates' block medians [rounds].

    Drift that both share cancels in each ratio; a round in which something hit only one of them moves the median
    of many rounds little.
    """
    logs = np.log(seconds / baseline)
    chosen = np.random.default_rng(seed).integers(len(logs), size=(RESAMPLES, len(logs)))
    return _interval(float(np.exp(np.median(logs))), np.exp(np.median(logs[chosen], axis=1)))


def block_medians(rounds: Rounds, candidate: int) -> np.ndarray:
    """Median seconds of the candidate's block in each round [rounds]."""
    return np.array([np.median(blocks[candidate].seconds) for blocks in rounds])


def others(rounds: Rounds, candidate: int) -> float:
    """Cores that other programs had while the candidate waited for them: the mean of its blocks."""
    return float(np.mean([blocks[candidate].others for blocks in rounds]))


def statistics(
    rounds: Rounds, candidate: int, baseline: int, seed: int
) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """(seconds, ratios to the baseline) of p10, p50, p90, p99 and mean over all timed calls.

    The p50 ratio is the paired one; the others are ratios of the pooled figures, resampled together. Where others had
    the cores (`others.BUSY`) its interval takes in that of p10, the calls that were disturbed least: the two differ by
    what the others did, which no resampling shows.
    """
    counts = _counts(len(rounds), seed)
    own = _pooled(_blocks(rounds, candidate), counts)
    base = own if candidate == baseline else _pooled(_blocks(rounds, baseline), counts)
    seconds = {key: _interval(float(values[0]), values[1:]) for key, values in own.items()}
    ratios = {key: _interval(float(own[key][0] / base[key][0]), own[key][1:] / base[key][1:]) for key in own}
    ratios["p50"] = paired_ratio(block_medians(rounds, candidate), block_medians(rounds, baseline), seed)
    if max(others(rounds, candidate), others(rounds, baseline)) > BUSY:
        ratios["p50"] = _around(ratios["p50"], ratios["p10"])
    return seconds, ratios


def _around(one: Interval, other: Interval) -> Interval:
    """The value of `one` within both intervals."""
    return Interval(one.value, min(one.low, other.low), max(one.high, other.high))


def _blocks(rounds: Rounds, candidate: int) -> list[np.ndarray]:
    return [blocks[candidate].seconds for blocks in rounds]


def _counts(rounds: int, seed: int) -> np.ndarray:
    """How often each round is drawn [1 + resamples, rounds]; the first row is the sample itself."""
    drawn = np.random.default_rng(seed).multinomial(rounds, np.full(rounds, 1 / rounds), size=RESAMPLES)
    return np.vstack([np.ones((1, rounds), drawn.dtype), drawn])


def _pooled(blocks: Sequence[np.ndarray], counts: np.ndarray) -> dict[str, np.ndarray]:
    """Each figure for each row of `counts`, over the calls of the rounds drawn."""
    seconds = np.concatenate(blocks)
    owner = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    order = np.argsort(seconds, kind="stable")
    seconds, owner = seconds[order], owner[order]
    figures: dict[str, list[np.ndarray]] = {key: [] for key in (*QUANTILES, "mean")}
    for rows in np.array_split(counts, max(1, len(counts) * len(seconds) // _CELLS)):
        weights = rows[:, owner]
        reached = np.cumsum(weights, axis=1)
        for key, share in QUANTILES.items():
            figures[key].append(seconds[(reached >= share * reached[:, -1:]).argmax(axis=1)])
        figures["mean"].append(weights @ seconds / reached[:, -1])
    return {key: np.concatenate(values) for key, values in figures.items()}


def _interval(value: float, resampled: np.ndarray) -> Interval:
    low, high = np.quantile(resampled, [TAIL, 1 - TAIL])
    return Interval(value, min(value, float(low)), max(value, float(high)))
