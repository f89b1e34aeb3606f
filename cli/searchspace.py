"""The Space of a search: what the layers of a network may run in on a target, and what that costs there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from convkit.cli import precisions, quantizing, tuning
from convkit.cli.building import Builder
from convkit.cli.precisions import F32, Precision
from convkit.compress.search import space as spaces
from convkit.compress.search.problem import Cost

if TYPE_CHECKING:
    from convkit.cli.quantizing import Job
    from convkit.compress.budget import Budget
    from convkit.compress.data import Data
    from convkit.compress.model import Model
    from convkit.compress.plan import LayerPlan, Plan
    from convkit.compress.search.problem import Formats, Problem
    from convkit.compress.search.remedies import Attempt, Task
    from convkit.compress.search.sensitivity import Losses
    from convkit.runtimes.latency.table import LatencyTable
    from convkit.runtimes.session.knobs import Knobs

Say = Callable[[str], None]
_TABLE_SHARE = 2.0
"""Seconds that the latency table takes, as part of the final measurement's."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the search may use and must keep to: names of weight `formats`, `budgets`, what is allowed at most, and the
    `precisions` that layers in float may all run in."""

    formats: tuple[str, ...]
    budgets: tuple[Budget, ...] = ()
    precisions: tuple[Precision, ...] = (F32,)


@dataclass(frozen=True, slots=True)
class Ground:
    """What all precisions share: `plan` has every layer in INT8, `knobs` are the engine's, `layers` what may change."""

    builder: Builder
    plan: Plan
    layers: Mapping[str, LayerPlan]
    knobs: tuning.Tuning


@dataclass(frozen=True, slots=True)
class Space:
    """What the layers of a network may run in, what that is expected to cost, and `plan`, all of them in INT8.

    Layers in float run in `precision`; the `original` runs as it was given, in float32.
    """

    builder: Builder
    plan: Plan
    options: spaces.Options
    losses: Losses
    table: LatencyTable
    problem: Problem
    original: Cost
    precision: Precision = F32

    @property
    def engine(self) -> Knobs:
        """Knobs of the engine for every network of the space."""
        return self.plan.engine

    def plan_of(self, formats: Formats) -> Plan:
        """The complete Plan of a choice; one that leaves every layer in float leaves the file as it is."""
        floating = self.precision.floating
        found = spaces.realised(self.builder.model, self.builder.target, self.plan, formats, floating)
        if not found.layers:
            return replace(found, methods=(), ranges={})
        return self.builder.complete(found)

    def simulated(self, network: Model) -> Model:
        """`network` in the arithmetic of the engine, its float layers in the precision."""
        return precisions.simulated(network, self.builder.target, self.engine)


def ground(job: Job, task: Task, chosen: Attempt, folder: Path) -> Ground:
    from convkit.compress import placement
    from convkit.compress.apply import prepare

    methods = (*chosen.plan.methods, *quantizing.placed_methods(job, task, chosen))
    builder = Builder(prepare(job.model, methods, task.data.probe[0]), job.target, task.data, folder)
    placed = placement.place(builder.model.graph, job.target, job.keep)
    layers = {name: chosen.plan.layers.get(name, layer) for name, layer in placed.items()}
    plan = builder.complete(replace(chosen.plan, methods=methods, layers=layers))
    return Ground(builder, plan, layers, tuning.Tuning())


def tuned(job: Job, ground: Ground, original: Path, held: Data, say: Say) -> tuning.Tuning:
    """The knobs of the original, and of all that is made of it, for which the network in INT8 stands."""
    if not job.tune:
        return ground.knobs
    path = ground.builder.file(ground.builder.network(ground.plan)) if ground.plan.layers else None
    return tuning.paced(job, tuning.tuning(job, original, path, held, say), original, held)


def each(job: Job, wishes: Wishes, task: Task, ground: Ground, say: Say) -> Iterator[Space]:
    """A Space for every precision in which there is anything to choose; the first table also tells the original's."""
    original = None
    for precision in wishes.precisions:
        space = _space(job, wishes, task, ground, precision, say)
        if original is None:
            whole = space.problem.cost(dict.fromkeys(space.options, precision.floating))
            original = replace(whole, seconds=whole.seconds * ground.knobs.pace)
        space = replace(space, original=original)
        if precision != F32 or wishes.formats:
            yield space


def _space(job: Job, wishes: Wishes, task: Task, ground: Ground, precision: Precision, say: Say) -> Space:
    from convkit.compress.search import sensitivity
    from convkit.runtimes.latency import table as latency

    builder, floating = ground.builder, precision.floating
    plan = replace(ground.plan, engine={**ground.knobs.lowered, **precision.knobs})
    found = spaces.options(builder.model, job.target, wishes.formats, floating, job.keep)
    say(f"sensitivity of {len(found)} layers in {sum(map(len, found.values()))} options")
    ranged = spaces.with_shared_ranges(builder.model, job.target, plan)
    losses = sensitivity.sensitivity(builder.model, job.target, ranged, found, task.data.probe, seed=job.seed)
    table = _table(job, builder, plan, say)
    costs, edges = latency.costs(table), latency.edges(table)
    rest = Cost(seconds=table.rest, bytes=_overhead(builder, plan))
    known = spaces.problem(builder.model, ground.layers, found, losses, costs, edges, rest)
    return Space(builder, plan, found, losses, table, known, known.fixed, precision)


def _overhead(builder: Builder, plan: Plan) -> float:
    """Bytes of a file beside its weights."""
    from convkit.compress import promotion

    weights = sum(promotion.plan_bytes(builder.model.graph, plan.layers).values())
    return builder.file(builder.network(plan)).stat().st_size - weights


def _table(job: Job, builder: Builder, plan: Plan, say: Say) -> LatencyTable:
    """Of this machine, measured once and kept."""
    from convkit.runtimes.latency import cache, measure
    from convkit.runtimes.latency.profile import Schedule

    def write(layers: Mapping[str, LayerPlan]) -> Path:
        known = {name: plan.layers.get(name, layer) for name, layer in layers.items()}
        return builder.file(builder.network(builder.complete(replace(plan, layers=known))))

    options = tuning.options(job, plan.engine)
    sample = {name: array[:1] for name, array in job.data.arrays.items()}
    own = measure.Job(builder.model, job.target, plan.methods, write, options, sample)
    say(f"latency of every layer on {job.target.engine}, float in {options.precision}")
    fingerprint = measure.fingerprint(builder.model, job.target, plan.methods, options)
    return cache.cached(fingerprint, lambda: measure.measure(own, Schedule(job.budget * _TABLE_SHARE, job.seed)))
