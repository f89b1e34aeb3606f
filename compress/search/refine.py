"""Choose, measure truly, correct the tables, choose again, until prediction and measurement agree."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from convkit.compress.option import FLOAT
from convkit.compress.search import budget
from convkit.compress.search.correction import MEASURED, Sight, corrected_by
from convkit.compress.search.problem import Choice, Cost, Formats, Problem, meets


@dataclass(frozen=True, slots=True)
class Measured:
    """What one candidate took; `noise` is the standard error of its seconds, relative to them. `bytes`: of its file,
    None where that is as counted."""

    loss: float
    seconds: float
    noise: float = 0.0
    bytes: float | None = None


Measure = Callable[[Sequence[Choice]], Sequence[Measured]]
"""Measures candidates side by side."""


AGREEMENT: Mapping[str, float] = {"seconds": 0.03, "loss": 0.1}
"""Relative differences of prediction and measurement up to which these agree; what a loss adds up to is less sure."""
_DEVIATIONS, _UNSURE = 2, 0.1
"""Standard errors of a measurement within which it tells no difference, and what they may be at most."""
PATIENCE = 3
"""Times as many rounds, until prediction and measurement agree."""
GIVEN = -1
_EXACT = 0.01
"""That of a prediction which one round alone proves."""
_INSIDE = 0.98
"""Of a room, what is looked for: what is promised just at its limit is found beyond it every other time."""
_ENOUGH, _NOTABLE = 3, 0.05
"""Measurements that tell a common factor, and how far it is off at least to be told."""


@dataclass(frozen=True, slots=True)
class Wish:
    """The least of `minimise` within `limits`.

    A round looks for it at the parts `around` of the limits on what is measured: what is promised just beside a limit
    is told by its measurement on which side it lies. `within`: relative differences of prediction and measurement
    that count as agreement; those of up to `same` do, however small the quantity is. What gains no more than `worth` is
    worth no round beyond those that there are anyway. What is promised at the parts `rooms` is measured once, at the
    end: a limit on what is measured is kept surely only by what keeps off it.
    """

    limits: Mapping[str, float]
    minimise: str = "loss"
    around: tuple[float, ...] = (1.0, 0.98, 1.02)
    within: Mapping[str, float] = field(default_factory=lambda: dict(AGREEMENT))
    same: Mapping[str, float] = field(default_factory=dict)
    worth: float = 0.0
    rooms: tuple[float, ...] = ()

    def allows(self, cost: Cost) -> bool:
        return all(meets(cost[name], limit) for name, limit in self.limits.items())

    def rank(self, cost: Cost) -> tuple[float, float]:
        """How far a cost is beyond the limits, then what it takes of what is to be least."""
        beyond = max((_beyond(cost[name], limit) for name, limit in self.limits.items()), default=0.0)
        return 0.0 if self.allows(cost) else max(beyond, 0.0), cost[self.minimise]

    def agrees(self, name: str, predicted: float, measured: float, noise: float = 0.0) -> bool:
        """Whether the quantity `name` was measured as it was predicted, as far as `noise` lets it be told."""
        return abs(predicted - measured) <= self._apart(name, measured, noise)

    def promises(self, predicted: Cost, measured: Cost) -> bool:
        """Whether what is predicted is better than what was measured, by more than they agree to, and worth a round."""
        (nearer, less), (beyond, value) = self.rank(predicted), self.rank(measured)
        if beyond:
            return nearer < beyond - max(self.within.get(name, 0.0) for name in self.limits)
        return not nearer and less < value - max(self._apart(self.minimise, value), self.worth)

    def _apart(self, name: str, measured: float, noise: float = 0.0) -> float:
        told = max(self.within[name], min(_DEVIATIONS * noise, _UNSURE) if name == "seconds" else 0.0)
        return max(told * abs(measured), self.same.get(name, 0.0))


def _beyond(taken: float, limit: float) -> float:
    """How far beyond a limit, as a part of it; of nothing there is none, and it stands for itself."""
    return (taken - limit) / abs(limit) if limit else taken


@dataclass(frozen=True, slots=True)
class Trial:
    """A plan, what the tables said of it, and its cost with loss, seconds, bytes as measured; `noise` as in Measured.

    `turn`: the round it was measured in, from 0; what was known before has GIVEN.
    """

    formats: Formats
    predicted: Cost
    measured: Cost
    noise: float = 0.0
    turn: int = GIVEN


@dataclass(frozen=True, slots=True)
class Refined:
    """The best plan measured, whether the wish allows it, and all that was tried.

    `agreed`: `problem`, the tables as corrected, have the best as it was measured, and promise nothing better.
    """

    best: Trial
    allowed: bool
    agreed: bool
    trials: tuple[Trial, ...]
    problem: Problem

    factor: float | None = None
    """What measured seconds are of those in the tables, where one factor tells most of what these err by."""


def refine(problem: Problem, measure: Measure, wish: Wish, rounds: int, known: Sequence[Trial] = ()) -> Refined:
    """The best plan for `wish` among what `rounds` (one at least) measure, those of `known` trials among them.

    It ends early where nothing better is promised, and goes on, PATIENCE times as many at most, until prediction and
    measurement agree. Raises ValueError where the problem has no plan at all.
    """
    trials = [*known]
    for turn in range(1 + max((trial.turn for trial in trials), default=GIVEN), PATIENCE * max(1, rounds)):
        if turn >= max(1, rounds) and _agreed(_corrected(problem, trials), wish, trials):
            break
        candidates = _candidates(problem, wish, trials, turn)
        if not candidates:
            break
        trials += [_trial(choice, found, turn) for choice, found in zip(candidates, measure(candidates), strict=True)]
    if not trials:
        raise ValueError("no plan is possible")
    current = _corrected(problem, trials)
    spare = _unmeasured((_promised(current, wish, trials, part * _INSIDE) for part in wish.rooms), trials)
    if spare:
        last = max(trial.turn for trial in trials)
        trials += [_trial(choice, found, last) for choice, found in zip(spare, measure(spare), strict=True)]
        current = _corrected(problem, trials)
    best = min(trials, key=lambda trial: wish.rank(trial.measured))
    agreed, factor = _agreed(current, wish, trials), _common_factor(problem, trials)
    return Refined(best, wish.allows(best.measured), agreed, tuple(trials), current, factor)


def _common_factor(problem: Problem, trials: Sequence[Trial]) -> float | None:
    """Geometric mean of measured seconds over the tables', where it is not 1 and they scatter less than it is off."""
    costs = [(trial.measured.seconds, problem.cost(trial.formats).seconds) for trial in trials if trial.turn != GIVEN]
    logs = [math.log(measured / table) for measured, table in costs if measured > 0 and table > 0]
    if len(logs) < _ENOUGH:
        return None
    middle = statistics.fmean(logs)
    told = abs(middle) > math.log1p(_NOTABLE) and statistics.stdev(logs) < abs(middle) / 2
    return math.exp(middle) if told else None


def with_room(refined: Refined, wish: Wish, part: float) -> Trial:
    """The best trial that keeps to `part` of the limits on what is measured: another measurement of it will, too.

    The tables, as all measurements corrected these, say so, not its own alone: the best of many is one of luck, and one
    that others on the machine disturbed is worse than it is. What an earlier search measured counts too, but the
    network as it was given. The best of all where none does.
    """
    limits = {name: limit * part if name in MEASURED else limit for name, limit in wish.limits.items()}
    narrower = replace(wish, limits=limits)
    chosen = [trial for trial in refined.trials if any(option != FLOAT for option in trial.formats.values())]
    believed = [(trial, _believed(trial, refined.problem)) for trial in chosen]
    keeping = [(trial, cost) for trial, cost in believed if narrower.allows(cost)]
    found = min(keeping, key=lambda one: narrower.rank(one[1]), default=None)
    return refined.best if found is None else found[0]


def _believed(trial: Trial, problem: Problem) -> Cost:
    """What it cost, in the time that it takes by the tables."""
    return replace(trial.measured, seconds=problem.cost(trial.formats).seconds)


def _candidates(problem: Problem, wish: Wish, trials: Sequence[Trial], turn: int) -> list[Choice]:
    """What the corrected tables promise; as long as they err, also what tables would that explain as much (Thompson,
    On the Likelihood that One Unknown Probability Exceeds Another, Biometrika 1933).

    The first round may agree by chance: unless it does exactly, what others promise is measured once before it ends.
    """
    current, number = _corrected(problem, trials), len(wish.around)
    firm = _unmeasured((_promised(current, wish, trials, part) for part in wish.around), trials)
    exact = replace(wish, within=dict.fromkeys(wish.within, _EXACT))
    silent = [replace(trial, noise=0.0) for trial in trials]
    if _as_predicted(trials, wish) and (firm or turn != 1 or _as_predicted(silent, exact)):
        return firm
    draws = range(turn * number + len(firm), (turn + 1) * number)
    others = (_promised(_corrected(problem, trials, draw), wish, trials, 1.0) for draw in draws)
    explored = (None if other is None else current.choice(other.formats) for other in others)
    return _unmeasured([*firm, *explored], trials)


def _agreed(current: Problem, wish: Wish, trials: Sequence[Trial]) -> bool:
    """Whether the tables, corrected, have the best as it was measured, and promise nothing better.

    A best beyond the limits was chosen for nothing but how near it is to these.
    """
    best = min(trials, key=lambda trial: wish.rank(trial.measured))
    asked = wish if wish.allows(best.measured) else replace(wish, minimise=next(iter(wish.limits)))
    promised = _unmeasured([_promised(current, wish, trials, 1.0)], trials)
    return _tells(asked, current.cost(best.formats), best) and not any(
        wish.promises(one.cost, best.measured) for one in promised
    )


def _tells(wish: Wish, cost: Cost, trial: Trial) -> bool:
    """Whether `cost` is what the trial took, as far as the wish asks for it."""
    asked = [name for name in MEASURED if name in {*wish.limits, wish.minimise}]
    return all(wish.agrees(name, cost[name], trial.measured[name], trial.noise) for name in asked)


def _as_predicted(trials: Sequence[Trial], wish: Wish) -> bool:
    """Whether the last round took what was predicted of it."""
    last = max((trial.turn for trial in trials), default=GIVEN)
    return all(_tells(wish, trial.predicted, trial) for trial in trials if trial.turn == last)


def _corrected(problem: Problem, trials: Sequence[Trial], draw: int | None = None) -> Problem:
    sights = [Sight(trial.formats, trial.measured, trial.noise) for trial in trials]
    return corrected_by(problem, sights, draw)


def _trial(choice: Choice, found: Measured, turn: int) -> Trial:
    size = choice.cost.bytes if found.bytes is None else found.bytes
    measured = replace(choice.cost, loss=found.loss, seconds=found.seconds, bytes=size)
    return Trial(choice.formats, choice.cost, measured, found.noise, turn)


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
