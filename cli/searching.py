"""What `convkit quantize --formats …` does: for each layer the formats of weight and activations, by measured accuracy
and latency under one budget.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from convkit.cli import contest, quantizing, sensing
from convkit.cli.batches import indices_in_range, split
from convkit.cli.building import Builder
from convkit.cli.checkpoint import Checkpoint
from convkit.cli.laboratory import Lab
from convkit.cli.progress import Progress
from convkit.cli.quantizing import Job
from convkit.cli.referee import Referee
from convkit.cli.work import Work
from convkit.compress import format as formats
from convkit.compress import graph as graphs
from convkit.compress.option import FLOAT
from convkit.compress.search import budget as choices
from convkit.compress.search import pins, problem, remedies
from convkit.compress.search import refine as refining
from convkit.compress.search import space as spaces
from convkit.compress.search.problem import Cost
from convkit.compress.search.refine import Refined, Wish

if TYPE_CHECKING:
    from convkit.compress.budget import Budget
    from convkit.compress.model import Model
    from convkit.compress.plan import LayerPlan, Plan
    from convkit.compress.search.problem import Choice, Formats, Problem
    from convkit.compress.search.remedies import Attempt, Task
    from convkit.compress.search.tables import Tables
    from convkit.runtimes.latency.table import LatencyTable

FRONT = 24
"""Points of the predicted front."""
ROUNDS = 3
"""How often candidates are measured and the tables corrected."""
TABLE_SHARE = 2.0
"""Seconds that the latency table takes, as part of the final measurement's."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the search may use and must keep to: names of weight `formats`, and `budgets`, what is allowed at most.

    `tables` are those of an earlier search, where there are some: nothing that they tell is measured again.
    """

    formats: tuple[str, ...]
    budgets: tuple[Budget, ...] = ()
    tables: Tables | None = None


@dataclass(frozen=True, slots=True)
class Space:
    """What the layers of a network may run in, what that is expected to cost, and `plan`, all of them in INT8.

    `pins`: the Options that a person decided. `estimated`: no seconds were measured. `digests`: of what it was made of.
    """

    builder: Builder
    plan: Plan
    options: spaces.Options
    problem: Problem
    estimated: bool
    digests: Mapping[str, str]
    pins: Formats = field(default_factory=dict)

    @property
    def original(self) -> Cost:
        """What the network in float costs by the tables."""
        return self.problem.cost(dict.fromkeys(self.options, FLOAT))

    @property
    def open(self) -> Problem:
        """The problem as far as it is to be decided."""
        return problem.pinned(self.problem, self.pins)

    def plan_of(self, formats: Formats) -> Plan:
        """The complete Plan of a choice."""
        return self.builder.complete(spaces.realised(self.builder.model, self.builder.target, self.plan, formats))

    def uniform(self) -> Plan:
        """All layers in the target's own format, but for those that are pinned."""
        return self.plan_of({**spaces.formats_of(self.plan, self.options), **self.pins}) if self.pins else self.plan


@dataclass(frozen=True, slots=True)
class Searched:
    """The outcome, and what tells of the way there. `missed`: the budgets that the network kept does not keep to."""

    outcome: quantizing.Outcome
    space: Space
    front: Sequence[Choice]
    refined: Refined
    missed: tuple[str, ...]
    work: Work


def search(job: Job, wishes: Wishes, say: Progress, kept: Checkpoint | None = None) -> Searched:
    """The most accurate network within the budgets, or the fastest that is as good where there are none.

    There always is one; the original where nothing else is surely faster and as good. What is `kept` of a run that was
    killed is not done again.
    """
    with indices_in_range(job.model), tempfile.TemporaryDirectory(prefix="convkit-") as folder:
        return _Search(job, wishes, say, kept or Checkpoint(), Path(folder), Work()).run()


@dataclass(frozen=True, slots=True)
class _Search:
    """A search with all that it goes on with."""

    job: Job
    wishes: Wishes
    say: Progress
    kept: Checkpoint
    folder: Path
    work: Work

    def run(self) -> Searched:
        data, held = split(self.job.data, self.job.seed)
        task = self.work.counting(quantizing.task(self.job, data, held))
        with self.work.stage("remedies"):
            start = _start(self.job, self.wishes)
            tried = quantizing.attempts(start, task, len(held), self.say, self.kept)
        chosen = remedies.best(tried, task.rank)
        space = _space(self, task, chosen)
        arena = quantizing.arena(self.job, held, chosen, tried, self.folder)
        lab = Lab(space, task, arena, self.kept, self.say)
        with self.work.stage("rounds"):
            front = list(choices.front(space.open, points=FRONT))
            lab.expect(front)
            known = () if self.wishes.tables is None else self.wishes.tables.trials
            refined = refining.refine(space.open, lab.measure, _wish(space, self.wishes, lab, front), ROUNDS, known)
        with self.work.stage("final"):
            return self._ended(lab, front, refined, tried)

    def _ended(self, lab: Lab, front: Sequence[Choice], refined: Refined, tried: Sequence[Attempt]) -> Searched:
        """The finalists side by side with the original, and the one that is kept."""
        candidates = lab.finalists(refined.best)
        referee = Referee(self.wishes.budgets, lab.space)
        standing = contest.hold(lab.arena, candidates, self.say, referee.pick if self.wishes.budgets else None)
        outcome = quantizing.outcome(self.job, standing, tried, len(lab.arena.held))
        return Searched(outcome, lab.space, front, refined, tuple(referee.missed(standing)), self.work)


def _start(job: Job, wishes: Wishes) -> Job:
    """`job` with the plan that the search begins with, where there is one: the tables', else the one that is given.

    Learned rounding is not repeated for every network that is built on the way.
    """
    from convkit.compress import plan as plans

    plan = job.plan if wishes.tables is None else plans.loads(wishes.tables.plan)
    if plan is None or not plan.layers:
        return replace(job, plan=None)
    learned = "learned_round" in plan.methods
    methods = [*(name for name in plan.methods if name != "learned_round"), *(["bias_correction"] if learned else [])]
    return replace(job, plan=replace(plan, methods=tuple(dict.fromkeys(methods))))


def _space(search: _Search, task: Task, chosen: Attempt) -> Space:
    from convkit.compress import placement
    from convkit.compress.apply import prepare
    from convkit.runtimes.latency import table as latency

    job, pinned = search.job, {} if search.job.plan is None else search.job.plan.pins
    usual = quantizing.placed_methods(job, task, chosen)
    methods = tuple(dict.fromkeys((*chosen.plan.methods, *usual)))
    builder = Builder(
        prepare(job.model, methods, task.data.probe[0]), job.target, task.data, search.folder, search.work
    )
    placed = placement.place(builder.model.graph, job.target, job.keep)
    layers = {name: _line(chosen.plan.layers.get(name), layer, name in pinned) for name, layer in placed.items()}
    plan = builder.complete(replace(chosen.plan, methods=methods, layers=layers, pins=pinned))
    if search.wishes.tables is not None:
        return _from_tables(job, builder, plan, search.wishes.tables)
    found = _options(job, search.wishes, builder.model)
    names = {graphs.key(node) for node in graphs.computes(builder.model.graph)}
    decided = pins.chosen(pinned, found, names - set(found))
    found = {name: (FLOAT, decided[name]) if name in decided else options for name, options in found.items()}
    found = {name: tuple(dict.fromkeys(options)) for name, options in found.items()}
    with search.work.stage("sensitivity"):
        losses = sensing.foretold(builder, plan, found, job.seed, search.kept, search.say)
    with search.work.stage("latency"):
        table = _table(search, builder, plan)
    costs, edges = latency.costs(table), latency.edges(table)
    rest = Cost(seconds=table.rest, bytes=_overhead(builder, plan))
    known = spaces.problem(builder.model, layers, found, losses, costs, edges, rest)
    space = Space(builder, plan, found, known, table.estimated, {"latency": table.fingerprint.digest}, decided)
    with search.work.stage("strongest"):
        return replace(space, problem=sensing.sharpened(space, job.seed, search.kept, search.work, search.say))


def _line(given: LayerPlan | None, usual: LayerPlan, pinned: bool) -> LayerPlan:
    """How a layer is quantized before its format is chosen; what an earlier choice says of another is no matter."""
    return given if given is not None and (pinned or given.weight == usual.weight) else usual


def _options(job: Job, wishes: Wishes, model: Model) -> spaces.Options:
    """What every layer may run in; the formats that pins ask for only those that are pinned."""
    found = spaces.options(model, job.target, wishes.formats, FLOAT, job.keep)
    asked = () if job.plan is None else filter(_is_of_weights, pins.formats(job.plan.pins))
    wider = spaces.options(model, job.target, (*wishes.formats, *asked), FLOAT, job.keep)
    return found if job.plan is None else {n: wider[n] if n in job.plan.pins else found[n] for n in found}


def _is_of_weights(name: str) -> bool:
    return formats.load(name).symmetric


def _from_tables(job: Job, builder: Builder, plan: Plan, tables: Tables) -> Space:
    """The space that `tables` know; nothing is measured."""
    options = {name: tuple(known) for name, known in tables.problem.options.items()}
    decided = {} if job.plan is None else pins.chosen(job.plan.pins, options)
    return Space(builder, plan, options, tables.problem, tables.estimated, tables.digests, decided)


def _overhead(builder: Builder, plan: Plan) -> float:
    """Bytes of a file beside its weights."""
    from convkit.compress import promotion

    weights = sum(promotion.plan_bytes(builder.model.graph, plan.layers).values())
    return builder.file(builder.network(plan)).stat().st_size - weights


def _table(search: _Search, builder: Builder, plan: Plan) -> LatencyTable:
    """Of this machine, measured once and kept, in the user's cache and with the search."""
    from convkit.runtimes.latency import cache, measure
    from convkit.runtimes.latency.profile import Schedule
    from convkit.runtimes.session import Options

    job = search.job

    def write(layers: Mapping[str, LayerPlan]) -> Path:
        known = {name: plan.layers.get(name, layer) for name, layer in layers.items()}
        return builder.file(builder.network(builder.complete(replace(plan, layers=known))))

    options = Options(threads=job.threads)
    sample = {name: array[:1] for name, array in job.data.arrays.items()}
    own = measure.Job(builder.model, job.target, plan.methods, write, options, sample)
    search.say(f"latency of every layer on {job.target.engine}")
    fingerprint = measure.fingerprint(builder.model, job.target, plan.methods, options)
    schedule = Schedule(job.budget * TABLE_SHARE, job.seed)

    def anew() -> LatencyTable:
        if search.kept.folder is None:
            return measure.measure(own, schedule)
        return cache.cached(fingerprint, lambda: measure.measure(own, schedule), search.kept.folder)

    return cache.cached(fingerprint, anew)


def _wish(space: Space, wishes: Wishes, lab: Lab, front: Sequence[Choice]) -> Wish:
    """The budgets as limits; without any, the least time up to the loss at which networks still are as good."""
    if not wishes.budgets:
        return Wish({"loss": lab.good_loss(front)}, minimise="seconds")
    return Wish({budget.quantity: budget.absolute(space.original[budget.quantity]) for budget in wishes.budgets})
