"""Which placement of a plan is kept: candidates and the original side by side on the target's engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from convkit.cli import foretold
from convkit.cli.goodness import Limits, good
from convkit.compress.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convkit.compress.data import Data
    from convkit.compress.target import Target
    from convkit.runtimes.bench.estimate import Interval
    from convkit.runtimes.bench.measure import Measurement, Result
    from convkit.runtimes.session.knobs import Knobs

ORIGINAL = "original"
_LOOK = 0.3
"""Share of the time that goes into a first look at all; the rest is for those that may still be the fastest."""
_FINALISTS = 2
SAME = 0.005
"""Placements within half a percent of each other are as fast."""
_WIDTH = 0.005
"""A ratio known to ± 0.5 % is known well enough to choose by."""
_ONCE = 1e-3
"""Seconds where times are no matter: the fewest rounds that there are."""
_FAR_DB, _CLEAN_DB = 6.0, 40.0
"""An engine whose noise has twice the amplitude of the simulation's computes something else than it was given, unless
it is clean anyway."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A placement of a plan, and the file that was made of it."""

    name: str
    plan: Plan
    path: Path
    simulated: Callable[[], float] | None = None
    """SQNR that its own simulation promises, in dB, asked of those that may be kept; None for the contest's."""


@dataclass(frozen=True, slots=True)
class Contest:
    """Where and on what candidates are compared. `simulated` is the SQNR that the simulation promises, in dB.

    Each network runs with the knobs of its plan, the original with `knobs`.
    """

    target: Target
    original: Path
    held: Data
    metrics: tuple[str, ...]
    limits: Limits
    simulated: float
    quantizable: bool
    """Whether the target runs any of the network in low precision."""
    threads: int
    budget: float
    seed: int
    knobs: Knobs = field(default_factory=dict)
    asked: str = ""
    """The formats of every layer, where they are not the target's own."""
    batch: int | None = None
    """Samples a call, where the network was fixed to them; the file given may leave that free."""
    estimate: Callable[[Plan], float] | None = None
    """Seconds under a plan, where the target's engine is not at hand; its stand-in computes the numbers then."""

    @property
    def formats(self) -> str:
        """What the networks run in, for people."""
        return self.asked or self.target.weight

    @property
    def engine(self) -> str:
        """The engine that runs the networks."""
        return self.target.engine if self.estimate is None else self.target.stand_in

    def in_words(self, ratio: Interval) -> str:
        """A network's time over the original's."""
        if self.estimate is not None:
            return f"{ratio.value:.2f}x the original's time by estimate; {foretold.words(self.target)}"
        return f"{ratio.value:.2f}x the original's time ({ratio.low:.2f} to {ratio.high:.2f})"


@dataclass(frozen=True, slots=True)
class Standing:
    """What the contest showed: the `candidates` and every network's `results`, those of the finalists from the last and
    longest run, and the candidate that is kept, None where `why` the original is."""

    kept: Candidate | None
    why: str
    results: tuple[Result, ...]
    final: Measurement
    candidates: Sequence[Candidate] = ()


class Judge(Protocol):
    """Who chooses by other things than time alone."""

    def pick(self, fit: Sequence[Candidate], results: Mapping[str, Result], /) -> Candidate | None:
        """The one of those that are as good as the original which is kept; None for the original."""

    def may_be_slower(self, results: Mapping[str, Result], /) -> bool:
        """Whether it need not be faster than the original."""


def hold(
    contest: Contest, candidates: Sequence[Candidate], say: Callable[[str], None], judge: Judge | None = None
) -> Standing:
    """Measure, and keep the fastest candidate that is as good on the engine and surely faster than the original.

    `judge`, where given, chooses; all are measured to the end then, and to be faster by the estimate is enough, or not
    even needed.
    """
    alone = len(candidates) <= _FINALISTS or judge is not None
    final = measured(contest, candidates, contest.budget * (1.0 if alone else _LOOK), say)
    results = {result.name: result for result in final.results}
    fit = [c for c in candidates if _is_good(contest, results[c.name], results[ORIGINAL])]
    if not alone:
        fit = list(islice(_true(contest, sorted(fit, key=lambda c: _pace(results[c.name])), results), _FINALISTS))
    if not alone and fit:
        final = measured(contest, fit, contest.budget * (1 - _LOOK), say)
        results |= {result.name: result for result in final.results}
    slower = judge is not None and judge.may_be_slower(results)
    kept = next(_true(contest, _in_turn(fit, results, judge, slower=slower), results), None)
    shown = tuple(results.values())
    if kept is None:
        return Standing(None, _why_none(contest, candidates, results), shown, final, candidates)
    times = contest.in_words(results[kept.name].ratios["p50"])
    if not slower and not _faster(results[kept.name], sure=judge is None):
        return Standing(None, f"{contest.formats} does not pay here: {times}", shown, final, candidates)
    return Standing(kept, times, shown, final, candidates)


def _in_turn(
    fit: Sequence[Candidate], results: Mapping[str, Result], judge: Judge | None, *, slower: bool
) -> Iterator[Candidate]:
    """The one to keep, then the one that would be kept without it, and so on; faster ones unless they may be slower."""
    left = list(fit)
    while left:
        faster = [c for c in left if not slower and _faster(results[c.name], sure=judge is None)]
        found = (_fastest if judge is None else judge.pick)(faster or left, results)
        if found is None:
            return
        yield found
        left.remove(found)


def _faster(result: Result, *, sure: bool) -> bool:
    """Whether it takes less time than the original, by the whole interval or by the estimate."""
    ratio = result.ratios["p50"]
    return (ratio.high if sure else ratio.value) < 1.0


def measured(
    contest: Contest, candidates: Sequence[Candidate], budget: float, say: Callable[[str], None]
) -> Measurement:
    """The candidates side by side with the original, `budget` seconds long; once each where times are estimated."""
    from convkit.runtimes.bench import candidate as bench
    from convkit.runtimes.bench.measure import Settings, measure
    from convkit.runtimes.session import Options
    from convkit.runtimes.session.knobs import turned

    usual = Options(threads=contest.threads, batch=contest.batch or 1)
    engine, estimate = contest.engine, contest.estimate
    files = [(ORIGINAL, contest.original, contest.knobs), *((c.name, c.path, c.plan.engine) for c in candidates)]
    what = f"{'measuring' if estimate is None else 'running'} {len(candidates)} networks on {engine}"
    if estimate is not None:
        # As few rewrites as it knows: what the other engine fuses is not what this one would.
        usual, files = replace(usual, optimization="basic"), [(name, path, {}) for name, path, _ in files]
    seconds, batch, seed = _ONCE if estimate else budget, contest.batch, contest.seed
    found = measure(
        [bench.Candidate(name, engine, str(path), turned(usual, engine, knobs)) for name, path, knobs in files],
        ORIGINAL,
        contest.held,
        Settings(budget=seconds, width=_WIDTH, seed=seed, metrics=contest.metrics, batch=batch),
        progress=lambda share: say(f"{what}: {share:.0%}"),
    )
    if estimate is None:
        return found
    plans = {ORIGINAL: Plan("", contest.target.name)} | {c.name: c.plan for c in candidates}
    return foretold.retimed(found, {name: estimate(plan) for name, plan in plans.items()}, contest.target)


def _is_good(contest: Contest, result: Result, original: Result) -> bool:
    """Whether the engine's network is as good as the original."""
    return good(result.metrics, original.metrics, contest.limits, len(contest.held))


def _true(contest: Contest, candidates: Iterable[Candidate], results: Mapping[str, Result]) -> Iterator[Candidate]:
    """Those of which the engine computes what was simulated."""
    for candidate in candidates:
        promised = _promised(contest, candidate)
        if results[candidate.name].metrics["sqnr"] >= min(promised - _FAR_DB, _CLEAN_DB):
            yield candidate


def _promised(contest: Contest, candidate: Candidate) -> float:
    """SQNR that the simulation promises, in dB."""
    return contest.simulated if candidate.simulated is None else candidate.simulated()


def _pace(result: Result) -> float:
    """Time relative to the original's where nothing disturbs them: others on the machine only ever add to it, and
    placements differ by less than that."""
    return result.ratios["p10"].value


def _fastest(fit: Sequence[Candidate], results: Mapping[str, Result]) -> Candidate | None:
    """The fastest; among those that are not slower by more than is worth it, the one nearest to the original."""
    pace = {c.name: _pace(results[c.name]) for c in fit}
    near = [c for c in fit if pace[c.name] <= min(pace.values()) * (1 + SAME)]
    return max(near, key=lambda c: (results[c.name].metrics["sqnr"], -pace[c.name]), default=None)


def _why_none(contest: Contest, candidates: Sequence[Candidate], results: Mapping[str, Result]) -> str:
    """Why no candidate fits."""
    if not candidates and not contest.quantizable:
        return f"{contest.target.name} runs nothing of this network in {contest.formats}"
    fit = [c for c in candidates if _is_good(contest, results[c.name], results[ORIGINAL])]
    if any(_true(contest, fit, results)):
        return "the original is nearer to it than what was made"
    wrong = next(iter(fit), None)
    if wrong is not None:
        return (
            f"{contest.engine} does not compute what it was given: {results[wrong.name].metrics['sqnr']:.1f} dB of "
            f"SQNR, {_promised(contest, wrong):.1f} dB in simulation"
        )
    return "no quantized network was as good as the original on held-back data"
