"""Choose, measure truly, correct the tables, choose again, until what they promise best was measured already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from convkit.compress.search import budget
from convkit.compress.search.correction import MEASURED, corrected_by
from convkit.compress.search.problem import Choice, Cost, Formats, Problem, meets

Measure = Callable[[Sequence[Choice]], Sequence[tuple[float, float]]]
"""Loss and seconds of each candidate, which are measured side by side."""


@dataclass(frozen=True, slots=True)
class Wish:
    """The least of `minimise` within `limits`.

    A round looks for it at these parts of the limits on what is measured: what is promised just beside a limit is told
    by its measurement on which side it lies.
    """

    limits: Mapping[str, float]
    minimise: str = "loss"
    around: tuple[float, ...] = (1.0, 0.98, 1.02)

    def allows(self, cost: Cost) -> bool:
        return all(meets(cost[name], limit) for name, limit in self.limits.items())

    def rank(self, cost: Cost) -> tuple[float, float]:
        """How far a cost is beyond the limits, then what it takes of what is to be least."""
        beyond = max((cost[name] / limit - 1 for name, limit in self.limits.items() if limit > 0), default=0.0)
        return 0.0 if self.allows(cost) else max(beyond, 0.0), cost[self.minimise]


@dataclass(frozen=True, slots=True)
class Trial:
    """A plan, what the tables said of it, and its cost with loss and seconds as measured."""

    formats: Formats
    predicted: Cost
    measured: Cost


@dataclass(frozen=True, slots=True)
class Refined:
    """The best plan measured, whether the wish allows it, and all that was tried.

    `agreed`: `problem`, the tables as corrected, promise nothing better.
    """

    best: Trial
    allowed: bool
    agreed: bool
    trials: tuple[Trial, ...]
    problem: Problem


def refine(problem: Problem, measure: Measure, wish: Wish, rounds: int, known: Sequence[Trial] = ()) -> Refined:
    """The best plan for `wish` among what up to `rounds` (one at least) measure, and what is `known` already.

    Raises ValueError where the problem has no plan at all.
    """
    trials, current = [*known], _corrected(problem, known)
    for _ in range(max(1, rounds)):
        candidates = _unmeasured((_promised(current, wish, trials, part) for part in wish.around), trials)
        if not candidates:
            break
        measured = measure(candidates)
        trials += [_trial(choice, found) for choice, found in zip(candidates, measured, strict=True)]
        current = _corrected(problem, trials)
    if not trials:
        raise ValueError("no plan is possible")
    best = min(trials, key=lambda trial: wish.rank(trial.measured))
    agreed = not _unmeasured([_promised(current, wish, trials, 1.0)], trials)
    return Refined(best, wish.allows(best.measured), agreed, tuple(trials), current)


def _corrected(problem: Problem, trials: Sequence[Trial]) -> Problem:
    return corrected_by(problem, [trial.formats for trial in trials], [trial.measured for trial in trials])


def _trial(choice: Choice, measured: tuple[float, float]) -> Trial:
    return Trial(choice.formats, choice.cost, replace(choice.cost, **dict(zip(MEASURED, measured, strict=True))))


def _promised(problem: Problem, wish: Wish, trials: Sequence[Trial], part: float) -> Choice | None:
    """The best plan by the tables within `part` of the limits, less those that were measured to be beyond them."""
    limits = {name: limit * part if name in MEASURED else limit for name, limit in wish.limits.items()}
    failed = [trial.formats for trial in trials if not wish.allows(trial.measured)]
    return budget.solve(problem, limits, wish.minimise, failed) or budget.closest(problem, limits)


def _unmeasured(choices: Iterable[Choice | None], trials: Sequence[Trial]) -> list[Choice]:
    seen = [trial.formats for trial in trials]
    found = []
    for choice in choices:
        if choice is not None and choice.formats not in seen:
            seen.append(choice.formats)
            found.append(choice)
    return found
