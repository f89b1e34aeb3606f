"""Choices held against what was measured: of one that was built and timed, its own figures count and no prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convkit.compress.search import budget
from convkit.compress.search.problem import Choice, Cost, Problem, meets
from convkit.compress.search.refine import Trial

Limits = Mapping[str, float]
Trials = Sequence[Trial]


def measured(trials: Trials, choice: Choice) -> Cost | None:
    """What the very same choice was found to take; None where nobody built it."""
    return next((trial.measured for trial in trials if trial.formats == choice.formats), None)


def cost(trials: Trials, choice: Choice) -> Cost:
    """What the choice takes: as measured, else as predicted."""
    return measured(trials, choice) or choice.cost


def best(problem: Problem, trials: Trials, limits: Limits) -> Choice | None:
    """The choice with the least loss within `limits`; None where there is none."""
    found = [choice for choice in _tried(problem, trials) if _within(cost(trials, choice), limits)]
    other = budget.solve(problem, limits, exclude=[trial.formats for trial in trials])
    return min([*found, *([other] if other else [])], key=lambda choice: cost(trials, choice).loss, default=None)


def closest(problem: Problem, trials: Trials, limits: Limits) -> Choice | None:
    """The choice that exceeds `limits` least, the first of them first; None where the problem has no choice at all."""
    other = budget.closest(problem, limits)
    found = [*_tried(problem, trials), *([other] if other else [])]
    return min(found, key=lambda choice: excess(cost(trials, choice), limits), default=None)


def front(problem: Problem, trials: Trials, points: int, limits: Limits) -> list[Choice]:
    """Choices within `limits` that none beats in both loss and seconds, some `points` and those measured, from the
    least loss to the least seconds.
    """
    found = budget.front(problem, "seconds", points, limits)
    met = {tuple(choice.formats.items()): choice for choice in [*found, *_tried(problem, trials)]}
    costs = [(cost(trials, choice), choice) for choice in met.values()]
    kept, least = [], float("inf")
    for its, choice in sorted(costs, key=lambda pair: (pair[0].seconds, pair[0].loss)):
        if its.loss < least and _within(its, limits):
            kept.append(choice)
            least = its.loss
    return kept[::-1]


def _tried(problem: Problem, trials: Trials) -> list[Choice]:
    """What was measured, as far as the problem still allows it, priced as the problem has it."""
    allowed = [t for t in trials if all(option in problem.options[name] for name, option in t.formats.items())]
    return [problem.choice(trial.formats) for trial in allowed]


def _within(its: Cost, limits: Limits) -> bool:
    return all(meets(its[quantity], limit) for quantity, limit in limits.items())


def excess(its: Cost, limits: Limits) -> tuple[float, ...]:
    """By what parts the limits are exceeded, in their order; 0 where one is not."""
    return tuple(0.0 if meets(its[name], limit) else its[name] / limit for name, limit in limits.items())
