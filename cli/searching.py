"""What `convkit quantize --formats …` does: for each layer the formats of weight and activations, by measured accuracy
and latency under one budget.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from convkit.cli import contest, quantizing
from convkit.cli.batches import indices_in_range, split
from convkit.cli.building import Builder, with_learned_rounding
from convkit.cli.contest import Candidate
from convkit.cli.quantizing import Job
from convkit.compress import budget as wished
from convkit.compress.option import FLOAT
from convkit.compress.search import budget as choices
from convkit.compress.search import refine as refining
from convkit.compress.search import remedies
from convkit.compress.search import space as spaces
from convkit.compress.search.problem import Cost
from convkit.compress.search.refine import Measured, Refined, Trial, Wish

if TYPE_CHECKING:
    from convkit.compress.budget import Budget
    from convkit.compress.plan import LayerPlan, Plan
    from convkit.compress.search.problem import Choice, Formats, Problem
    from convkit.compress.search.remedies import Attempt, Task
    from convkit.compress.search.sensitivity import Losses
    from convkit.runtimes.bench.measure import Result
    from convkit.runtimes.latency.table import LatencyTable

Say = Callable[[str], None]
_FRONT = 24
"""Points of the predicted front."""
_ROUNDS = 3
"""How often candidates are measured and the tables corrected."""
_TABLE_SHARE, _ROUND_SHARE = 2.0, 0.4
"""Seconds that the latency table and a round of candidates take, as parts of the final measurement's."""
_ERRORS = 1.96
"""Half the width of a 95 % interval in standard errors."""
_BISECTIONS = 4
"""Looks along the front for the loss that is still good."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the search may use and must keep to: names of weight `formats`, and `budgets`, what is allowed at most."""

    formats: tuple[str, ...]
    budgets: tuple[Budget, ...] = ()


@dataclass(frozen=True, slots=True)
class Space:
    """What the layers of a network may run in, what that is expected to cost, and `plan`, all of them in INT8."""

    builder: Builder
    plan: Plan
    options: spaces.Options
    losses: Losses
    table: LatencyTable
    problem: Problem

    def plan_of(self, formats: Formats) -> Plan:
        """The complete Plan of a choice."""
        return self.builder.complete(spaces.realised(self.builder.model, self.builder.target, self.plan, formats))


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
        space = _space(job, wishes, task, chosen, Path(folder), say)
        front = list(choices.front(space.problem, points=_FRONT))
        arena = quantizing.arena(job, held, chosen, tried, Path(folder))
        lab = _Lab(space, task, arena, say)
        wish = _wish(space, wishes, lab, front)
        refined = refining.refine(space.problem, lab.measure, wish, _ROUNDS, known=[lab.whole])
        if refined.factor is not None:
            say(f"choices take {refined.factor:.2f}x what the latency table says of them")
        return _ended(job, wishes, lab, front, refined, tried)


def _space(job: Job, wishes: Wishes, task: Task, chosen: Attempt, folder: Path, say: Say) -> Space:
    from convkit.compress import placement
    from convkit.compress.apply import prepare
    from convkit.compress.search import sensitivity
    from convkit.runtimes.latency import table as latency

    methods = (*chosen.plan.methods, *quantizing.placed_methods(job, task, chosen))
    builder = Builder(prepare(job.model, methods, task.data.probe[0]), job.target, task.data, folder)
    placed = placement.place(builder.model.graph, job.target, job.keep)
    layers = {name: chosen.plan.layers.get(name, layer) for name, layer in placed.items()}
    plan = builder.complete(replace(chosen.plan, methods=methods, layers=layers))
    found = spaces.options(builder.model, job.target, wishes.formats, FLOAT, job.keep)
    say(f"sensitivity of {len(found)} layers in {sum(map(len, found.values()))} options")
    ranged = spaces.with_shared_ranges(builder.model, job.target, plan)
    losses = sensitivity.sensitivity(builder.model, job.target, ranged, found, task.data.probe, seed=job.seed)
    table = _table(job, builder, plan, say)
    rest = Cost(seconds=table.rest, bytes=_overhead(builder, plan))
    known = spaces.problem(builder.model, layers, found, losses, table.layers, latency.edges(table), rest)
    return Space(builder, plan, found, losses, table, known)


def _overhead(builder: Builder, plan: Plan) -> float:
    """Bytes of a file beside its weights."""
    from convkit.compress import promotion

    weights = sum(promotion.plan_bytes(builder.model.graph, plan.layers).values())
    return builder.file(builder.network(plan)).stat().st_size - weights


def _table(job: Job, builder: Builder, plan: Plan, say: Say) -> LatencyTable:
    """Of this machine, measured once and kept."""
    from convkit.runtimes.latency import cache, measure
    from convkit.runtimes.latency.profile import Schedule
    from convkit.runtimes.session import Options

    def write(layers: Mapping[str, LayerPlan]) -> Path:
        known = {name: plan.layers.get(name, layer) for name, layer in layers.items()}
        return builder.file(builder.network(builder.complete(replace(plan, layers=known))))

    options = Options(threads=job.threads)
    sample = {name: array[:1] for name, array in job.data.arrays.items()}
    own = measure.Job(builder.model, job.target, plan.methods, write, options, sample)
    say(f"latency of every layer on {job.target.engine}")
    fingerprint = measure.fingerprint(builder.model, job.target, plan.methods, options)
    table = cache.cached(fingerprint, lambda: measure.measure(own, Schedule(job.budget * _TABLE_SHARE, job.seed)))
    if table.disturbance.marked:
        say(f"the latency table is unsure: rounds differed by {table.disturbance.spread:.0%}, others use the machine")
    return table


@dataclass(frozen=True, slots=True)
class _Lab:
    """Where choices are truly measured."""

    space: Space
    task: Task
    arena: contest.Contest
    say: Say

    @property
    def whole(self) -> Trial:
        """The network in float: it loses nothing, and what the others take is told by their ratio to it."""
        formats = dict.fromkeys(self.space.options, FLOAT)
        cost = self.space.problem.cost(formats)
        return Trial(formats, cost, replace(cost, loss=0.0))

    def scores(self, plan: Plan) -> Mapping[str, float]:
        """Metrics of the simulated network on held-back samples."""
        return self.task.score(self.space.builder.network(plan))

    def measure(self, found: Sequence[Choice]) -> list[Measured]:
        """Loss on held-back samples, and seconds side by side with the original's, of each choice."""
        candidates, losses = [], []
        for index, choice in enumerate(found):
            plan = self.space.plan_of(choice.formats)
            network = self.space.builder.network(plan)
            losses.append(10 ** (-self.task.score(network)["sqnr"] / 10))
            candidates.append(Candidate(f"choice {index}", plan, self.space.builder.file(network)))
        timed = contest.measured(self.arena, candidates, self.arena.budget * _ROUND_SHARE, self.say)
        original, ratios = self.whole.measured.seconds, [timed[one.name].ratios["p10"] for one in candidates]
        measured = [
            Measured(loss, ratio.value * original, ratio.width / _ERRORS)
            for loss, ratio in zip(losses, ratios, strict=True)
        ]
        self.say("; ".join(f"{10**3 * one.seconds:.2f} ms at noise {one.loss:.1e}" for one in measured))
        return measured


def _wish(space: Space, wishes: Wishes, lab: _Lab, front: Sequence[Choice]) -> Wish:
    """The budgets as limits; without any, the least time up to the loss at which networks still are as good."""
    if not wishes.budgets:
        return Wish({"loss": _good_loss(lab, front)}, minimise="seconds")
    whole = space.problem.cost(dict.fromkeys(space.options, FLOAT))
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


def _ended(
    job: Job, wishes: Wishes, lab: _Lab, front: Sequence[Choice], refined: Refined, tried: Sequence[Attempt]
) -> Searched:
    """The finalists side by side with the original, and the one that is kept."""
    candidates = _finalists(lab, refined)
    referee = Referee(wishes.budgets, lab.space)
    standing = contest.hold(lab.arena, candidates, lab.say, referee.pick if wishes.budgets else None)
    outcome = quantizing.outcome(job, standing, tried, len(lab.arena.held))
    return Searched(outcome, lab.space, front, refined, tuple(referee.missed(standing)))


@dataclass(frozen=True, slots=True)
class Referee:
    """Holds measured networks against budgets."""

    budgets: Sequence[Budget]
    space: Space

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
        formats = {} if plan is None else spaces.formats_of(plan, self.space.options)
        return self.space.problem.cost(dict.fromkeys(self.space.options, FLOAT) | formats)["bops"]


def _finalists(lab: _Lab, refined: Refined) -> list[Candidate]:
    """The best choice, the same with learned rounding, and all layers in the target's own format."""
    builder, chosen = lab.space.builder, lab.space.plan_of(refined.best.formats)
    plans = {"searched": chosen, "searched, learned rounding": with_learned_rounding(chosen), "uniform": lab.space.plan}
    found: dict[bytes, Candidate] = {}
    for name, plan in plans.items():
        network = builder.network(plan)
        path = builder.file(network)
        if plan.layers and path.read_bytes() not in found:
            found[path.read_bytes()] = Candidate(name, plan, path, lab.task.score(network)["sqnr"])
    return list(found.values())
