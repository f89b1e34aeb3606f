"""What `convkit quantize --formats …` does: for each layer the formats of weight and activations, by measured accuracy
and latency under one budget.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from convkit.cli import contest, quantizing, searchspace
from convkit.cli.batches import indices_in_range, split
from convkit.cli.building import with_learned_rounding
from convkit.cli.contest import Candidate
from convkit.cli.quantizing import Job
from convkit.cli.searchspace import Space, Wishes
from convkit.compress import budget as wished
from convkit.compress.option import FLOAT
from convkit.compress.search import budget as choices
from convkit.compress.search import refine as refining
from convkit.compress.search import remedies
from convkit.compress.search import space as spaces
from convkit.compress.search.refine import Refined, Wish

if TYPE_CHECKING:
    from convkit.compress.budget import Budget
    from convkit.compress.plan import Plan
    from convkit.compress.search.problem import Choice
    from convkit.compress.search.remedies import Attempt, Task
    from convkit.runtimes.bench.measure import Result

Say = Callable[[str], None]
_FRONT = 24
"""Points of the predicted front."""
_ROUNDS = 3
"""How often candidates are measured and the tables corrected."""
_ROUND_SHARE = 0.4
"""Seconds that a round of candidates takes, as part of the final measurement's."""
_BISECTIONS = 4
"""Looks along the front for the loss that is still good."""


@dataclass(frozen=True, slots=True)
class Searched:
    """The outcome, and what tells of the way there. `missed`: the budgets that the network kept does not keep to."""

    outcome: quantizing.Outcome
    space: Space
    front: Sequence[Choice]
    refined: Refined
    missed: tuple[str, ...]


def search(job: Job, wishes: Wishes, say: Say) -> Searched:
    """The most accurate network within the budgets, or the fastest that is as good where there are none.

    There always is one; the original where nothing else is surely faster and as good.
    """
    with indices_in_range(job.model), tempfile.TemporaryDirectory(prefix="convkit-") as folder:
        data, held = split(job.data, job.seed)
        task = quantizing.task(job, data, held)
        tried = quantizing.attempts(job, task, len(held), say)
        chosen = remedies.best(tried, task.rank)
        arena = quantizing.arena(job, held, chosen, tried, Path(folder))
        ground = searchspace.ground(job, task, chosen, Path(folder))
        ground = replace(ground, knobs=searchspace.tuned(job, ground, arena.original, held, say))
        arena = quantizing.tuned(arena, job, ground.knobs)
        hunts = [
            _hunt(wishes, _Lab(space, task, arena, say)) for space in searchspace.each(job, wishes, task, ground, say)
        ]
        return _ended(job, wishes, hunts, tried)


@dataclass(frozen=True, slots=True)
class _Lab:
    """Where choices are truly measured."""

    space: Space
    task: Task
    arena: contest.Contest
    say: Say

    def scores(self, plan: Plan) -> Mapping[str, float]:
        """Metrics of the simulated network on held-back samples."""
        return self.task.score(self.space.simulated(self.space.builder.network(plan)))

    def candidate(self, name: str, plan: Plan) -> Candidate:
        """The network of `plan`: its file, the original's where every layer is in float, and what it promises."""
        network = self.space.builder.network(plan)
        path = self.space.builder.file(network) if plan.layers else self.arena.original
        return Candidate(name, plan, path, self.task.score(self.space.simulated(network))["sqnr"])

    def measure(self, found: Sequence[Choice]) -> list[tuple[float, float]]:
        """Loss on held-back samples, and seconds side by side with the original's, of each choice."""
        plans = (self.space.plan_of(choice.formats) for choice in found)
        candidates = [self.candidate(f"choice {index}", plan) for index, plan in enumerate(plans)]
        losses = [10 ** (-(candidate.simulated or 0.0) / 10) for candidate in candidates]
        timed = contest.measured(self.arena, candidates, self.arena.budget * _ROUND_SHARE, self.say)
        whole = self.space.original.seconds
        seconds = [timed[candidate.name].ratios["p10"].value * whole for candidate in candidates]
        self.say("; ".join(f"{10**3 * s:.2f} ms at noise {loss:.1e}" for loss, s in zip(losses, seconds, strict=True)))
        return list(zip(losses, seconds, strict=True))


@dataclass(frozen=True, slots=True)
class _Hunt:
    """The search of one Space, ended."""

    lab: _Lab
    front: Sequence[Choice]
    refined: Refined


def _hunt(wishes: Wishes, lab: _Lab) -> _Hunt:
    problem = lab.space.problem
    front = list(choices.front(problem, points=_FRONT))
    return _Hunt(lab, front, refining.refine(problem, lab.measure, _wish(wishes, lab, front), _ROUNDS))


def _wish(wishes: Wishes, lab: _Lab, front: Sequence[Choice]) -> Wish:
    """The budgets as limits; without any, the least time up to the loss at which networks still are as good."""
    if not wishes.budgets:
        return Wish({"loss": _good_loss(lab, front)}, minimise="seconds")
    whole = lab.space.original
    return Wish({budget.quantity: budget.absolute(whole[budget.quantity]) for budget in wishes.budgets})


def _good_loss(lab: _Lab, front: Sequence[Choice]) -> float:
    """Measured loss of the last choice along the front, from the most accurate on, that is as good as the original."""
    order = sorted(front, key=lambda choice: choice.cost["loss"])
    low, high, found = 0, len(order) - 1, 0.0
    for _ in range(_BISECTIONS):
        if low >= high:
            break
        middle = (low + high + 1) // 2
        scores = lab.scores(lab.space.plan_of(order[middle].formats))
        if lab.task.good(scores):
            low, found = middle, 10 ** (-scores["sqnr"] / 10)
        else:
            high = middle - 1
    return max(found, order[low].cost["loss"])


def _ended(job: Job, wishes: Wishes, hunts: Sequence[_Hunt], tried: Sequence[Attempt]) -> Searched:
    """The finalists of every precision side by side with the original, and the one that is kept."""
    lab = hunts[0].lab
    candidates = [candidate for hunt in hunts for candidate in _finalists(hunt.lab, hunt.refined)]
    referee = Referee(wishes.budgets, [hunt.lab.space for hunt in hunts])
    standing = contest.hold(lab.arena, candidates, lab.say, referee.pick if wishes.budgets else None)
    outcome = quantizing.outcome(job, standing, tried, len(lab.arena.held), lab.arena.knobs)
    kept = next((hunt for hunt in hunts if hunt.lab.space.engine == outcome.plan.engine), hunts[0])
    return Searched(outcome, kept.lab.space, kept.front, kept.refined, tuple(referee.missed(standing)))


@dataclass(frozen=True, slots=True)
class Referee:
    """Holds measured networks against budgets."""

    budgets: Sequence[Budget]
    spaces: Sequence[Space]

    def pick(self, fit: Sequence[Candidate], results: Mapping[str, Result]) -> Candidate | None:
        """The most accurate within the budgets, else the one nearest to them."""

        def rank(candidate: Candidate) -> tuple[float, float]:
            excess = max(
                self._excess(budget, candidate.plan, results[candidate.name], results) for budget in self.budgets
            )
            return max(0.0, excess), -results[candidate.name].metrics["sqnr"]

        return min(fit, key=rank, default=None)

    def missed(self, standing: contest.Standing) -> Iterator[str]:
        """What is said of every budget that the network kept exceeds."""
        results = {result.name: result for result in standing.results}
        name = contest.ORIGINAL if standing.kept is None else standing.kept.name
        plan = None if standing.kept is None else standing.kept.plan
        for budget in self.budgets:
            if self._excess(budget, plan, results[name], results) > 0:
                taken = self._taken(budget, plan, results[name])
                nearest = wished.reachable(budget.name, taken)
                asked = f"--{budget.name} {budget.text!r}"
                yield f"{asked} is out of reach here; the nearest is --{budget.name} {nearest!r}"

    def _excess(self, budget: Budget, plan: Plan | None, result: Result, results: Mapping[str, Result]) -> float:
        """By what part of the limit the network exceeds it."""
        whole = self._taken(budget, None, results[contest.ORIGINAL])
        if budget.quantity == "seconds" and budget.relative:
            return result.ratios["p50"].value / budget.limit - 1
        return self._taken(budget, plan, result) / budget.absolute(whole) - 1

    def _taken(self, budget: Budget, plan: Plan | None, result: Result) -> float:
        """What a network takes of the budget's quantity."""
        if budget.quantity == "seconds":
            return result.seconds["p50"].value
        if budget.quantity == "bytes":
            return float(result.size or 0)
        if plan is None:
            return self.spaces[0].original.bops
        space = next(space for space in self.spaces if space.engine == plan.engine)
        return space.problem.cost(spaces.formats_of(plan, space.options, space.precision.floating))["bops"]


def _finalists(lab: _Lab, refined: Refined) -> list[Candidate]:
    """The best choice, the same with learned rounding, all layers in the target's own format, and all of them in float
    where its precision is not the original's."""
    space = lab.space
    chosen, floating = space.plan_of(refined.best.formats), space.precision.floating
    plans = {"searched": chosen, "searched, learned rounding": with_learned_rounding(chosen), "uniform": space.plan}
    may_change = any(len(options) > 1 for options in space.options.values())
    plans = {name: plan for name, plan in plans.items() if plan.layers and may_change}
    if floating != FLOAT:
        plans = {f"{name}, float in {floating}": plan for name, plan in plans.items()}
        plans[f"all in {floating}"] = space.plan_of(dict.fromkeys(space.options, floating))
    found: dict[bytes, Candidate] = {}
    for name, plan in plans.items():
        candidate = lab.candidate(name, plan)
        found.setdefault(candidate.path.read_bytes(), candidate)
    return list(found.values())
