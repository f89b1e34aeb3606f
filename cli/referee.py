"""The Referee: holds measured networks against the budgets that a person wishes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convkit.cli import contest
from convkit.cli.contest import ORIGINAL, Candidate
from convkit.compress import budget as wished
from convkit.compress.search import space as spaces
from convkit.compress.search.criterion import DISTANCE, Criterion

if TYPE_CHECKING:
    from convkit.cli.searchspace import Space
    from convkit.compress.budget import Budget
    from convkit.compress.plan import Plan
    from convkit.runtimes.bench.measure import Result


@dataclass(frozen=True, slots=True)
class Referee:
    """Holds measured networks against budgets."""

    budgets: Sequence[Budget]
    spaces: Sequence[Space]
    criterion: Criterion = DISTANCE
    """What is accurate."""

    def pick(self, fit: Sequence[Candidate], results: Mapping[str, Result]) -> Candidate | None:
        """The most accurate within the budgets, else of those nearest to them, and of those that run the same kernels:
        what these differ by in time is chance. None where the original is nearer.
        """
        beyond = {one.name: self._beyond(one.plan, results[one.name], results) for one in fit}
        least = min(beyond.values(), default=0.0)
        near = [one for one in fit if beyond[one.name] <= least + (contest.SAME if least else 0.0)]
        if least:
            alike = [_kernels(one.plan) for one in near]
            near = [one for one in fit if one in near or _kernels(one.plan) in alike]
        if least > self._beyond(None, results[ORIGINAL], results):
            return None
        of_float = results[ORIGINAL].metrics
        return min(near, key=lambda one: self.criterion.loss(results[one.name].metrics, of_float), default=None)

    def may_be_slower(self, results: Mapping[str, Result]) -> bool:
        """Whether time is not what is asked for, and the original does not keep to what is."""
        original = results[ORIGINAL]
        asks_time = any(budget.quantity == "seconds" for budget in self.budgets)
        return not asks_time and any(self._excess(budget, None, original, results) > 0 for budget in self.budgets)

    def _beyond(self, plan: Plan | None, result: Result, results: Mapping[str, Result]) -> float:
        """By what part of a limit the network exceeds it at most; 0 within all."""
        return max(0.0, *(self._excess(budget, plan, result, results) for budget in self.budgets))

    def over(self, standing: contest.Standing) -> frozenset[str]:
        """Names of the networks measured to the end that exceed a budget."""
        results = {result.name: result for result in standing.results}
        plans = {ORIGINAL: None} | {one.name: one.plan for one in standing.candidates}
        return frozenset(name for name, plan in plans.items() if self._beyond(plan, results[name], results) > 0)

    def missed(self, standing: contest.Standing) -> Iterator[str]:
        """What is said of every budget that the network kept exceeds."""
        results = {result.name: result for result in standing.results}
        name = ORIGINAL if standing.kept is None else standing.kept.name
        plan = None if standing.kept is None else standing.kept.plan
        for budget in self.budgets:
            if self._excess(budget, plan, results[name], results) > 0:
                nearest = self._nearest(budget, plan, results[name], results)
                asked, why = f"--{budget.name} {budget.text!r}", "" if plan else f": {standing.why}"
                yield f"{asked} is out of reach here{why}; the nearest is --{budget.name} {nearest!r}"

    def _nearest(self, budget: Budget, plan: Plan | None, result: Result, results: Mapping[str, Result]) -> str:
        """The wish that the network just fulfils."""
        taken, whole = self._taken(budget, plan, result), self._taken(budget, None, results[ORIGINAL])
        if budget.quantity == "seconds" and budget.relative:
            taken = result.ratios["p50"].value * whole
        return wished.nearest(budget, taken, whole)

    def _excess(self, budget: Budget, plan: Plan | None, result: Result, results: Mapping[str, Result]) -> float:
        """By what part of the limit the network exceeds it."""
        whole = self._taken(budget, None, results[ORIGINAL])
        if budget.quantity == "seconds" and budget.relative:
            return result.ratios["p50"].value / budget.limit - 1
        limit, taken = budget.absolute(whole), self._taken(budget, plan, result)
        return taken / limit - 1 if limit else taken

    def _taken(self, budget: Budget, plan: Plan | None, result: Result) -> float:
        """What a network takes of the budget's quantity."""
        if budget.quantity == "seconds":
            return result.seconds["p50"].value
        if budget.quantity == "bytes":
            return float(result.size or 0)
        if plan is None:
            return self.spaces[0].original.bops
        space = next(space for space in self.spaces if space.makes(plan))
        return space.problem.cost(spaces.formats_of(plan, space.options, space.precision.floating))["bops"]


def _kernels(plan: Plan) -> tuple[object, ...]:
    """What a network takes its time by: the widths, forms and formats of its layers, and the engine's knobs."""
    formats = {name: (layer.weight, layer.activation) for name, layer in plan.layers.items()}
    return formats, dict(plan.widths), dict(plan.forms), dict(plan.engine)
