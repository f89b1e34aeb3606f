"""The Space of a search: what the layers of a network may run in on a target, and what that costs there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.cli import forming, precisions, quantizing, sensing, timing, tuning
from convkit.cli.building import Builder
from convkit.cli.checkpoint import Checkpoint
from convkit.cli.forming import Variant
from convkit.cli.precisions import F32, Precision
from convkit.cli.progress import Progress
from convkit.cli.quantizing import Job
from convkit.cli.work import Work
from convkit.compress import graph as graphs
from convkit.compress.plan import TAYLOR
from convkit.compress.search import pins, problem
from convkit.compress.search import space as spaces
from convkit.compress.search.criterion import DISTANCE, Criterion
from convkit.compress.search.problem import Cost

if TYPE_CHECKING:
    from convkit.compress.budget import Budget
    from convkit.compress.data import Data
    from convkit.compress.model import Model
    from convkit.compress.plan import LayerPlan, Plan
    from convkit.compress.search.problem import Formats, Problem
    from convkit.compress.search.remedies import Attempt, Task
    from convkit.compress.search.tables import Tables


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the search may use and must keep to: names of weight `formats`, `budgets`, what is allowed at most, and the
    `precisions` that layers in float may all run in. `criterion`: what a loss is.

    `tables` are those of an earlier search, where there are some: nothing that they tell is measured again; `others`
    are what that search left of other precisions.
    """

    formats: tuple[str, ...]
    budgets: tuple[Budget, ...] = ()
    precisions: tuple[Precision, ...] = (F32,)
    criterion: Criterion = DISTANCE
    tables: Tables | None = None
    others: tuple[Tables, ...] = ()
    forms: tuple[str, ...] = ()
    """Names of forms that convolutions may have beside their own."""
    narrow: int = 0
    """What widths of narrower layers are multiples of; 0 where all keep their own."""
    importance: str = TAYLOR
    """By what channels are ranked that may go."""

    def known(self, precision: Precision) -> Tables | None:
        """The tables for layers in float that run in `precision`."""
        return next((one for one in self.others if one.floating == str(precision.floating)), self.tables)


@dataclass(frozen=True, slots=True)
class Means:
    """What a search goes on with."""

    job: Job
    wishes: Wishes
    say: Progress
    kept: Checkpoint
    folder: Path
    work: Work


@dataclass(frozen=True, slots=True)
class Ground:
    """What all precisions share: `plan` has every layer in INT8, `knobs` are the engine's, `layers` what may change."""

    builder: Builder
    plan: Plan
    layers: Mapping[str, LayerPlan]
    knobs: tuning.Tuning = field(default_factory=tuning.Tuning)
    level: str = ""
    """Said of the network where it is narrower than it was."""


@dataclass(frozen=True, slots=True)
class Space:
    """What the layers of a network may run in, what that is expected to cost, and `plan`, all of them in INT8.

    Layers in float run in `precision`; the `original` runs as it was given, in float32. `pins`: the Options that a
    person decided. `estimated`: no seconds were measured. `digests`: of what it was made of. `criterion`: what its
    losses are. `level`: said of a network that is narrower than it was.
    """

    builder: Builder
    plan: Plan
    options: spaces.Options
    problem: Problem
    original: Cost
    precision: Precision = F32
    estimated: bool = False
    digests: Mapping[str, str] = field(default_factory=dict)
    pins: Formats = field(default_factory=dict)
    criterion: Criterion = DISTANCE
    variants: Sequence[Variant] = ()
    level: str = ""

    @property
    def open(self) -> Problem:
        """The problem as far as it is to be decided."""
        return problem.pinned(self.problem, self.pins)

    def plan_of(self, formats: Formats) -> Plan:
        """The complete Plan of a choice; one that leaves every layer in float leaves the file as it is."""
        floating = self.precision.floating
        forms = {name: option.form for name, option in formats.items() if option.form}
        ranges = {**self.plan.ranges, **forming.ranges(self.builder, self.variants, forms)}
        plan, chosen = replace(self.plan, forms=forms, ranges=ranges), forming.in_pieces(self.builder, formats)
        found = spaces.realised(self.builder.formed(forms), self.builder.target, plan, chosen, floating)
        if not found.changes:
            return replace(found, methods=(), ranges={})
        return self.builder.complete(found)

    def uniform(self) -> Plan:
        """All layers in the target's own format, but for those that are pinned."""
        if not self.pins:
            return self.plan
        known = spaces.formats_of(self.plan, self.options, self.precision.floating)
        return self.plan_of({**known, **self.pins})

    def makes(self, plan: Plan) -> bool:
        """Whether `plan` is one of its networks, by what all of these have alike."""
        return plan.engine == self.plan.engine and dict(plan.widths) == dict(self.plan.widths)

    def has(self, plan: Plan) -> bool:
        """Whether every layer of `plan` runs in one of its options."""
        found = spaces.formats_of(plan, self.options, self.precision.floating)
        return all(option in self.options[name] for name, option in found.items())

    def simulated(self, network: Model) -> Model:
        """`network` in the arithmetic of the engine, its float layers in the precision."""
        return precisions.simulated(network, self.builder.target, self.plan.engine)


def ground(means: Means, task: Task, chosen: Attempt) -> Ground:
    """The network prepared as the chosen attempt and the target's usual placement have it."""
    from convkit.compress import placement
    from convkit.compress.apply import prepare

    job, pinned = means.job, means.job.pins
    usual = quantizing.placed_methods(job, task, chosen)
    methods = tuple(dict.fromkeys((*chosen.plan.methods, *usual)))
    widths = {} if means.wishes.narrow else chosen.plan.widths
    importance = means.wishes.importance if means.wishes.narrow else chosen.plan.importance
    model = prepare(job.model, methods, task.data.probe, widths=widths, importance=importance)
    made: dict[str, Any] = {"widths": widths, "importance": importance}
    builder = Builder(model, job.target, task.data, means.folder, means.work, job.engine, **made)
    placed = placement.place(model.graph, job.target, job.keep)
    layers = {name: _line(chosen.plan.layers.get(name), layer, name in pinned) for name, layer in placed.items()}
    own = replace(chosen.plan, methods=methods, layers=layers, pins=pinned, forms={}, **made)
    plan = builder.complete(own)
    return Ground(builder, plan, layers)


def tuned(means: Means, ground: Ground, original: Path, held: Data) -> tuning.Tuning:
    """The knobs of the original, and of all that is made of it, for which the network in INT8 stands."""
    job = means.job

    def found() -> tuning.Tuning:
        if not job.tune:
            return tuning.Tuning(lowered={} if job.plan is None else job.plan.engine)
        path = ground.builder.file(ground.builder.network(ground.plan)) if ground.plan.layers else None
        return tuning.paced(job, tuning.tuning(job, original, path, held, means.say), original, held)

    made = means.kept.kept("knobs", found, tuning.packed, tuning.unpacked)
    return made if means.wishes.tables is None else replace(made, lowered=ground.plan.engine)


def each(means: Means, grounds: Iterable[Ground]) -> Iterator[Space]:
    """A Space for every ground, and every precision, in which there is anything to choose; the first table also tells
    what the original takes.
    """
    wishes, original = means.wishes, None
    if wishes.tables is not None:
        (ground,) = grounds
        yield from (_from_tables(means.job, ground, tables) for tables in (wishes.tables, *wishes.others))
        return
    for ground in grounds:
        met: sensing.Met = {}
        for precision in wishes.precisions:
            space = _space(means, ground, precision)
            if original is None:
                whole = space.problem.cost(dict.fromkeys(space.options, precision.floating))
                original = _original(means.job, whole.seconds * ground.knobs.pace)
            space = replace(space, original=original)
            if precision != F32 or wishes.formats or wishes.forms or ground.level:
                with means.work.stage("strongest"):
                    sharp = sensing.sharpened(space, means.job.seed, means.kept, means.work, means.say, met)
                yield replace(space, problem=sharp)


def _original(job: Job, seconds: float) -> Cost:
    """What the network takes as it was given: what is made ready for the search may hold more channels."""
    from convkit.compress.analysis import analyse

    macs = sum(layer.macs for layer in analyse(job.model).layers)
    return Cost(seconds=seconds, bytes=len(quantizing.original_bytes(job)), bops=spaces.float_bops(macs))


def _line(given: LayerPlan | None, usual: LayerPlan, pinned: bool) -> LayerPlan:
    """How a layer is quantized before its format is chosen; what an earlier choice says of another is no matter."""
    return given if given is not None and (pinned or given.weight == usual.weight) else usual


def _space(means: Means, ground: Ground, precision: Precision) -> Space:
    from convkit.runtimes.latency import table as latency

    builder, job, known = ground.builder, means.job, sensing.sensed(means, ground, precision)
    plan, found, made, losses = known.plan, known.options, known.variants, known.losses
    with means.work.stage("latency"):
        timed = plan if means.wishes.formats else replace(plan, layers={}, ranges={})
        tables = timing.tables(means, builder, timed, [one.plan for one in made])
    table, floating = tables[0], precision.floating
    rest = Cost(seconds=table.rest, bytes=_overhead(builder, plan))
    times = spaces.Times(table.layers, latency.edges(table))
    whole = spaces.problem(builder.model, builder.target, ground.layers, found, losses, times, rest, floating)
    whole = forming.joined(builder, whole, list(zip(made, tables[1:], strict=True)), losses, floating)
    found = {name: tuple(options) for name, options in whole.options.items()}
    digests = {"latency": table.fingerprint.digest, **({} if table.estimated else timing.device(job))}
    facts = precision, table.estimated, digests, known.pins, means.wishes.criterion, made, ground.level
    return Space(builder, plan, found, whole, whole.fixed, *facts)


def _from_tables(job: Job, ground: Ground, tables: Tables) -> Space:
    """The space that `tables` know; nothing is measured."""
    options = {name: tuple(known) for name, known in tables.problem.options.items()}
    precision = _precision(ground, tables)
    others = {graphs.key(node) for node in graphs.computes(ground.builder.model.graph)} - set(options)
    decided = pins.chosen(job.pins, options, others, precision.floating, job.target.narrower)
    facts = precision, tables.estimated, tables.digests, decided, tables.criterion
    # What the earlier search was told to leave in float has no options.
    layers = {name: layer for name, layer in ground.plan.layers.items() if name in options}
    plan = replace(ground.plan, layers=layers, engine=_engine(ground, tables))
    return Space(ground.builder, plan, options, tables.problem, tables.original, *facts)


def _engine(ground: Ground, tables: Tables) -> Mapping[str, Any]:
    """The knobs of the search that made the tables, in their precision."""
    from convkit.compress import plan as plans

    return plans.loads(tables.plan).engine if tables.plan else ground.plan.engine


def _precision(ground: Ground, tables: Tables) -> Precision:
    return precisions.named(str(_engine(ground, tables).get("precision", F32.name)))


def _overhead(builder: Builder, plan: Plan) -> float:
    """Bytes of a file beside its weights."""
    from convkit.compress import promotion

    weights = sum(promotion.plan_bytes(builder.model.graph, plan.layers, packed=builder.target.packed).values())
    return builder.file(builder.network(plan)).stat().st_size - weights
