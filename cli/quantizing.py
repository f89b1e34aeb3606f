"""What `convkit quantize` does: search a plan by accuracy, measure its placements on the target, keep what pays."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.cli import building, contest, foretold, precisions, tuning
from convkit.cli.batches import batching, calibration_of, indices_in_range, run, split
from convkit.cli.checkpoint import Checkpoint
from convkit.cli.goodness import Limits, good, remark, tells
from convkit.compress import metric, record
from convkit.compress import plan as plans
from convkit.compress.data import Data
from convkit.compress.plan import Plan
from convkit.compress.search.criterion import DISTANCE, Criterion

if TYPE_CHECKING:
    from convkit.compress.model import Model
    from convkit.compress.option import Option
    from convkit.compress.search.remedies import Attempt, Task
    from convkit.compress.target import Target
    from convkit.runtimes.session.knobs import Knobs


ORIGINAL_FILE = "original.onnx"


@dataclass(frozen=True, slots=True)
class Job:
    """What to quantize, with what data, for what, within which limits."""

    source: str
    model: Model
    data: Data
    target: Target
    limits: Limits
    seed: int = 0
    threads: int = 2
    budget: float = 15.0
    keep: tuple[str, ...] = ()
    plan: Plan | None = None
    tune: bool = True
    """Whether the engine's knobs are tuned, for the original and for what is made of it; those that are `fixed` not."""
    fixed: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    """Methods to quantize with in place of the usual remedies."""
    precision: Option | None = None
    """The formats of every layer, in place of the target's own."""
    estimated: bool = False
    """The target's engine is not at hand, so that times are estimates."""

    @property
    def pins(self) -> Mapping[str, str]:
        """What the plan says of layers that are not to be searched."""
        return {} if self.plan is None else self.plan.pins

    @property
    def engine(self) -> str:
        """The one that runs networks here: the target's, or what stands in for it."""
        return self.target.stand_in if self.estimated else self.target.engine


@dataclass(frozen=True, slots=True)
class Outcome:
    """The network that is kept, and everything that was tried on the way. `kept` is ORIGINAL or a candidate's name.

    `knobs`: those that the original ran with; the kept network's are its plan's.
    """

    kept: str
    verdict: str
    reason: str
    plan: Plan
    model: bytes
    attempts: Sequence[Attempt]
    standing: contest.Standing
    held_back: int
    knobs: Knobs = field(default_factory=dict)


def quantize(job: Job, say: Callable[[str], None], kept: Checkpoint | None = None) -> Outcome:
    """The fastest network that is as good on held-back data, measured; the original where none is faster."""
    with indices_in_range(job.model):
        return _quantized(job, say, kept or Checkpoint())


def _quantized(job: Job, say: Callable[[str], None], kept: Checkpoint) -> Outcome:
    from convkit.compress.search import remedies

    data, held = split(job.data, job.seed)
    asked = task(job, data, held)
    tried = attempts(job, asked, len(held), say, kept)
    chosen = remedies.best(tried, asked.rank)
    with tempfile.TemporaryDirectory(prefix="convkit-") as folder:
        candidates = list(_candidates(job, asked, chosen, Path(folder)))
        where = arena(job, held, chosen, tried, Path(folder))
        found = tuning.tuning(job, where.original, candidates[0].path if candidates else None, held, say)
        candidates = [replace(c, plan=replace(c.plan, engine=found.lowered)) for c in candidates]
        standing = contest.hold(tuned(where, job, found), candidates, say)
        return outcome(job, standing, tried, len(held), found.original)


def tuned(where: contest.Contest, job: Job, found: tuning.Tuning) -> contest.Contest:
    """The contest with the original's knobs, in the time that is left."""
    left = 1 - 2 * tuning.SHARE if job.tune else 1.0
    return replace(where, knobs=found.original, budget=job.budget * left)


def attempts(job: Job, asked: Task, held: int, say: Callable[[str], None], kept: Checkpoint) -> list[Attempt]:
    """Every remedy that was tried, or the plan that was given; `held` samples are held back."""
    from convkit.compress.search import remedies

    known = {name: _attempt(name, text) for name, text in (kept.value("remedies") or {}).items()}
    if kept.value("remedies done"):
        return list(known.values())
    tried: list[Attempt] = []
    for attempt in remedies.attempts(asked, known) if job.plan is None else (remedies.given(asked, job.plan),):
        tried.append(attempt)
        kept.add("remedies", {attempt.remedy: _packed(attempt)})
        say(f"{attempt.remedy}: {_words(attempt.scores, held)}")
    kept.keep("remedies done", value=True)
    return tried


def _packed(attempt: Attempt) -> dict[str, Any]:
    return {"plan": plans.dump(attempt.plan), "scores": dict(attempt.scores), "good": attempt.good}


def _attempt(remedy: str, text: Mapping[str, Any]) -> Attempt:
    from convkit.compress.search.remedies import Attempt

    return Attempt(remedy, plans.loads(text["plan"]), text["scores"], text["good"])


def outcome(job: Job, standing: contest.Standing, tried: Sequence[Attempt], held: int, knobs: Knobs) -> Outcome:
    """What the contest makes of the job; the original ran with `knobs`."""
    seen = held if len(job.data) > 1 else 0
    kept = standing.kept
    if kept is None:
        empty = Plan(job.model.digest, job.target.name, engine=knobs, pins=job.pins)
        own = original_bytes(job, job.target.engine)
        return Outcome(contest.ORIGINAL, "kept float", standing.why, empty, own, tried, standing, seen, knobs)
    checked = remark(seen) or f"no loss shown on {seen} samples held back"
    verdict = _verdict(kept.plan)
    why, written = f"{standing.why}, {checked}", building.shipped(kept.path)
    return Outcome(kept.name, verdict, why, kept.plan, written, tried, standing, seen, knobs)


def _verdict(plan: Plan) -> str:
    """What was made of the network."""
    made = {"narrowed": plan.widths, "factorized": plan.forms, "quantized": plan.layers}
    done = [word for word, of in made.items() if of]
    return " and ".join(done) or f"kept the file, set to {plan.engine.get('precision', 'f32')}"


def arena(job: Job, held: Data, chosen: Attempt, tried: Sequence[Attempt], folder: Path) -> contest.Contest:
    """Where networks made of the attempt `chosen` compete with the original, whose file goes into `folder`."""
    original = folder / ORIGINAL_FILE
    record.write_bytes(original, original_bytes(job))
    return contest.Contest(
        target=job.target,
        original=original,
        held=held,
        metrics=tuple(chosen.scores),
        limits=job.limits,
        simulated=chosen.scores["sqnr"],
        quantizable=any(attempt.plan.changes for attempt in tried),
        threads=job.threads,
        budget=job.budget,
        seed=job.seed,
        asked="" if job.precision is None else str(job.precision),
        batch=job.model.batch,
        estimate=foretold.estimator(job) if job.estimated else None,
    )


def task(job: Job, data: Data, held: Data, criterion: Criterion = DISTANCE) -> Task:
    """The job as the remedies see it: calibrated on `data`, judged on `held`, by the metric of `criterion` as well."""
    from convkit.compress.search.remedies import REMEDIES, Task, with_methods

    by = batching(job.model, data)
    reference = run(job.model, held, by.size)
    names = tuple(dict.fromkeys((*metric.defaults(reference, held.labels), criterion.metric)))
    given: Knobs = {} if job.plan is None else job.plan.engine

    def score(model: Model) -> dict[str, float]:
        outputs = run(precisions.simulated(model, job.target, given), held, by.size)
        return {name: metric.evaluate(name, outputs, reference, held.labels) for name in names}

    floor = {name: metric.evaluate(name, reference, reference, held.labels) for name in names}
    return Task(
        job.model,
        job.target,
        calibration_of(data, by, labels=criterion.by_labels),
        score,
        rank=lambda scores: scores["sqnr"],
        good=lambda scores: good(scores, floor, job.limits, len(held)),
        keep=job.keep,
        remedies=(with_methods(job.methods),) if job.methods else REMEDIES,
        option=job.precision,
        of_float=floor,
    )


def _candidates(job: Job, asked: Task, chosen: Attempt, folder: Path) -> Iterator[contest.Candidate]:
    """The chosen plan in each placement that the target's data names, as files; equal ones once."""
    from convkit.compress import calibration
    from convkit.compress.apply import apply_prepared, prepare

    seen: set[bytes] = set()
    forms, widths = chosen.plan.forms, chosen.plan.widths
    shape = partial(prepare, forms=forms, widths=widths, importance=chosen.plan.importance)
    base = shape(job.model, chosen.plan.methods, asked.data.probe)
    floats = _floats(base, job.target, chosen.plan)
    variants = ({},) if job.plan else job.target.placements or ({},)
    for index, variant in enumerate(variants):
        methods = (*chosen.plan.methods, *_allowed(job, base, variant, asked))
        model = shape(job.model, methods, asked.data.probe)
        kept = {*job.keep, *variant.get("float", ()), *_ends(model, variant)}
        layers = asked.placed(model, kept | floats)
        layers = {name: chosen.plan.layers.get(name, layer) for name, layer in layers.items()}
        same = replace(chosen.plan, methods=methods, layers=layers)
        plan = calibration.complete(model, job.target, same, asked.data)
        quantized = apply_prepared(model, plan, job.target, asked.data.seen_by(plan.methods))
        path = folder / f"{index}.onnx"
        building.write(quantized, job.target, job.engine, path)
        written = path.read_bytes()
        if not same.changes and "precision" in same.engine:
            yield contest.Candidate("as planned", same, folder / ORIGINAL_FILE)
        if not same.changes or written in seen:
            continue
        seen.add(written)
        yield contest.Candidate(variant.get("name", "as planned"), plan, path)


def placed_methods(job: Job, asked: Task, chosen: Attempt) -> tuple[str, ...]:
    """Methods of the target's usual placement, the first."""
    from convkit.compress.apply import prepare

    base = prepare(job.model, chosen.plan.methods, asked.data.probe)
    return _allowed(job, base, job.target.placements[0], asked) if job.target.placements else ()


def _allowed(job: Job, base: Model, variant: Mapping[str, Any], asked: Task) -> tuple[str, ...]:
    return tuple(name for name in variant.get("methods", ()) if _leaves_kept(job, base, name, asked))


def _leaves_kept(job: Job, base: Model, method: str, asked: Task) -> bool:
    """Whether `method` makes nothing else of the layers and operators that are to stay in float."""
    from convkit.compress import graph as graphs
    from convkit.compress.apply import prepare

    if not job.keep:
        return True
    before, after = (
        {graphs.key(node): graphs.operator(node) for node in graphs.computes(model.graph)}
        for model in (base, prepare(base, (method,), asked.data.probe))
    )
    return all(after.get(key) == kind for key, kind in before.items() if {key, kind} & {*job.keep})


def _floats(model: Model, target: Target, plan: Plan) -> set[str]:
    """Layers that the plan already gave back to float; `model` has been through the plan's own methods only."""
    from convkit.compress import placement

    return set(placement.place(model.graph, target)) - set(plan.layers)


def _ends(model: Model, variant: Mapping[str, Any]) -> set[str]:
    """Names of the first or last layers with weights, where a placement speaks of those."""
    from convkit.compress import graph as graphs

    weighted = [graphs.key(node) for node in graphs.computes(model.graph) if graphs.module(node) is not None]
    chosen = {"first": weighted[:1], "last": weighted[-1:]}
    return {name for end in variant.get("ends", ()) for name in chosen[end]}


def original_bytes(job: Job, engine: str = "") -> bytes:
    """The network that was given, as one ONNX file: the user's own where it is one, else as `engine` wants it, or that
    which measures."""
    from convkit.cli import original
    from convkit.export import exporter

    if own := original.own_bytes(job.source, job.model):
        return own
    return exporter.of_engine(engine or job.engine).bytes(job.model, job.target.opset)


def _words(scores: Mapping[str, float], count: int) -> str:
    """The scores that tell something on `count` samples."""
    units = {name: metric.load(name).unit for name in scores}
    told = (f"{name} {metric.figure(scores[name])} {unit}" for name, unit in units.items() if tells(unit, count))
    return ", ".join(map(str.strip, told))
