"""What `convkit quantize` does: search a plan by accuracy, measure its placements on the target, keep what pays."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.cli.batches import batch_size, calibration_of, run
from convkit.compress import metric, record
from convkit.compress.data import Data
from convkit.compress.plan import Plan

if TYPE_CHECKING:
    import numpy as np

    from convkit.compress.model import Model
    from convkit.compress.search.remedies import Attempt, Task
    from convkit.compress.target import Target
    from convkit.runtimes.bench.estimate import Interval
    from convkit.runtimes.bench.measure import Measurement

ORIGINAL = "original"
_HELD_BACK = 0.25
_SAME = 0.01
"""Placements within 1 % of each other are as fast."""
_FEW = 20
"""Fewer held-back samples than this tell nothing about a drop of a few percent: SQNR alone decides."""
_UNLIKELY = 0.05
_WIDTH = 0.01
"""A ratio known to ± 1 % is known well enough to choose by."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a quantized network is as good: points of agreement or accuracy lost at most, dB of SQNR at least."""

    max_drop: float
    min_sqnr: float


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
    budget: float = 10.0
    keep: tuple[str, ...] = ()
    plan: Plan | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A placement of a plan, and the file that was made of it."""

    name: str
    plan: Plan
    path: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """The network that is kept, and everything that was tried on the way. `kept` is ORIGINAL or a candidate's name."""

    kept: str
    verdict: str
    reason: str
    plan: Plan
    model: bytes
    attempts: Sequence[Attempt]
    measurement: Measurement
    held_back: int


def quantize(job: Job, say: Callable[[str], None]) -> Outcome:
    """The fastest network that is as good on held-back data, measured; the original where none is faster."""
    from convkit.compress.search import remedies

    calibration_data, held = split(job)
    task = _task(job, calibration_data, held)
    tried: list[Attempt] = []
    for attempt in remedies.attempts(task) if job.plan is None else (remedies.given(task, job.plan),):
        tried.append(attempt)
        say(f"{attempt.remedy}: {_words(attempt.scores)}")
    chosen = remedies.best(tried, task.rank)
    with tempfile.TemporaryDirectory(prefix="convkit-") as folder:
        candidates = list(_candidates(job, task, chosen, Path(folder)))
        say(f"measuring {len(candidates)} placements on {job.target.engine}")
        measurement = _measure(job, candidates, held, Path(folder), say)
        return _judge(job, candidates, tried, measurement, held)


def split(job: Job) -> tuple[Data, Data]:
    """Calibration and held-back samples; too few samples to part serve as both."""
    return job.data.split(_HELD_BACK, job.seed) if len(job.data) > 1 else (job.data, job.data)


def _task(job: Job, data: Data, held: Data) -> Task:
    from convkit.compress import simulate
    from convkit.compress.search.remedies import Task

    size = batch_size(job.model, data)
    reference = run(job.model, held, size)
    names = metric.defaults(reference, held.labels)

    def score(model: Model) -> dict[str, float]:
        outputs = run(simulate.integers(model), held, size)
        scores = {name: metric.evaluate(name, outputs, reference, held.labels) for name in names}
        return scores | {"sqnr": _worst_sqnr(outputs, reference)}

    floor = {name: metric.evaluate(name, reference, reference, held.labels) for name in names}
    return Task(
        job.model,
        job.target,
        calibration_of(data, size),
        score,
        rank=lambda scores: scores["sqnr"],
        good=lambda scores: _good(scores, floor, job.limits, len(held)),
        keep=job.keep,
    )


def _worst_sqnr(outputs: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> float:
    """Of the output that suffered most; class indices are no signal, unless there is nothing else."""
    names = [name for name, array in reference.items() if array.dtype.kind == "f"] or list(reference)
    return min(metric.evaluate("sqnr", outputs, reference, output=name) for name in names)


def _good(scores: Mapping[str, float], of_float: Mapping[str, float], limits: Limits, count: int) -> bool:
    """Whether no metric lost surely more than allowed.

    On a few dozen samples two flips are chance, not a drop: what decides is whether so many flips among `count` samples
    would be unlikely (under 5 %) if the true drop were the one that is allowed. A collapse shows in SQNR first.
    """
    if scores["sqnr"] < limits.min_sqnr:
        return False
    if count < _FEW:
        return True
    drops = [of_float[name] - scores[name] for name in ("top1", "agreement") if name in scores]
    flips = [max(0, round(drop * count / 100)) for drop in drops]
    return all(_chance(flip, count, limits.max_drop / 100) >= _UNLIKELY for flip in flips)


def _chance(flips: int, count: int, rate: float) -> float:
    """Probability of at least `flips` among `count` when each happens at `rate` (binomial)."""
    import math

    return sum(math.comb(count, k) * rate**k * (1 - rate) ** (count - k) for k in range(flips, count + 1))


def _candidates(job: Job, task: Task, chosen: Attempt, folder: Path) -> Iterator[Candidate]:
    """The chosen plan in each placement that the target's data names, as files; equal ones once."""
    from convkit.compress import calibration, placement
    from convkit.compress.apply import apply_prepared, prepare
    from convkit.export.onnx import to_onnx

    seen: set[bytes] = set()
    floats = _floats(prepare(job.model, chosen.plan.methods, task.data.probe[0]), job.target, chosen.plan)
    variants = ({},) if job.plan else job.target.placements or ({},)
    for index, variant in enumerate(variants):
        methods = (*chosen.plan.methods, *variant.get("methods", ()))
        model = prepare(job.model, methods, task.data.probe[0])
        kept = {*job.keep, *variant.get("float", ()), *_ends(model, variant)}
        layers = placement.place(model.graph, job.target, kept | floats)
        layers = {name: chosen.plan.layers.get(name, layer) for name, layer in layers.items()}
        same = replace(chosen.plan, methods=methods, layers=layers)
        plan = calibration.complete(model, job.target, same, task.data)
        quantized = apply_prepared(model, plan, job.target, task.data.probe)
        written = bytes(to_onnx(quantized, job.target.opset).SerializeToString(deterministic=True))
        if not layers or written in seen:
            continue
        seen.add(written)
        path = folder / f"{index}.onnx"
        record.write_bytes(path, written)
        yield Candidate(variant.get("name", "as planned"), plan, path)


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


def _measure(
    job: Job, candidates: Sequence[Candidate], held: Data, folder: Path, say: Callable[[str], None]
) -> Measurement:
    from convkit.runtimes.bench import candidate as bench
    from convkit.runtimes.bench.measure import Settings, measure
    from convkit.runtimes.session import Options

    original = folder / "original.onnx"
    record.write_bytes(original, original_bytes(job))
    options = Options(threads=job.threads)
    files = [(ORIGINAL, original), *((c.name, c.path) for c in candidates)]
    names = tuple(n for n in ("top1", "top5", "agreement", "psnr", "sqnr") if n in _metrics(job, held))
    return measure(
        [bench.Candidate(name, job.target.engine, str(path), options) for name, path in files],
        ORIGINAL,
        held,
        Settings(budget=job.budget, width=_WIDTH, seed=job.seed, metrics=names),
        progress=lambda share: say(f"measuring {share:.0%}"),
    )


def _metrics(job: Job, held: Data) -> tuple[str, ...]:
    one = held.batch(slice(0, 1))
    return metric.defaults(run(job.model, one, batch_size(job.model, one)), held.labels)


def original_bytes(job: Job) -> bytes:
    """The network that was given, as one ONNX file: the user's own bytes where it is one."""
    import onnx

    from convkit.export.onnx import to_onnx

    if job.source.endswith(".onnx"):
        proto = onnx.load(job.source, load_external_data=False)
        if not any(onnx.external_data_helper.uses_external_data(t) for t in proto.graph.initializer):
            return Path(job.source).read_bytes()
    return bytes(to_onnx(job.model, job.target.opset).SerializeToString(deterministic=True))


def _judge(
    job: Job, candidates: Sequence[Candidate], tried: Sequence[Attempt], measurement: Measurement, held: Data
) -> Outcome:
    """Keep the fastest candidate that is as good on the engine and surely faster than the original."""
    base = measurement[ORIGINAL].metrics
    good = [c for c in candidates if _good(measurement[c.name].metrics, base, job.limits, len(held))]
    faster = [c for c in good if measurement[c.name].ratios["p50"].high < 1.0]
    fastest = _fastest(faster or good, measurement)
    seen = len(held) if len(job.data) > 1 else 0
    if fastest is None or measurement[fastest.name].ratios["p50"].high >= 1.0:
        why = _why_not(job, candidates, None if fastest is None else measurement[fastest.name].ratios["p50"])
        empty = Plan(job.model.digest, job.target.name)
        return Outcome(ORIGINAL, "kept float", why, empty, original_bytes(job), tried, measurement, seen)
    checked = f"no loss shown on {seen} samples held back" if seen else "checked on its one calibration sample only"
    why = f"{_times(measurement[fastest.name].ratios['p50'])}, {checked}"
    written = fastest.path.read_bytes()
    return Outcome(fastest.name, "quantized", why, fastest.plan, written, tried, measurement, seen)


def _fastest(good: Sequence[Candidate], measurement: Measurement) -> Candidate | None:
    """The fastest; among those that are not slower by more than is worth it, the one nearest to the original."""
    ratio = {c.name: measurement[c.name].ratios["p50"].value for c in good}
    near = [c for c in good if ratio[c.name] <= min(ratio.values()) * (1 + _SAME)]
    return max(near, key=lambda c: (measurement[c.name].metrics["sqnr"], -ratio[c.name]), default=None)


def _why_not(job: Job, candidates: Sequence[Candidate], ratio: Interval | None) -> str:
    if not candidates:
        return f"{job.target.name} runs nothing of this network in {job.target.weight}"
    if ratio is None:
        return "no quantized network was as good as the original on held-back data"
    return f"{job.target.weight} does not pay here: {_times(ratio)}"


def _times(ratio: Interval) -> str:
    return f"{ratio.value:.2f}x the original's time ({ratio.low:.2f} to {ratio.high:.2f})"


def _words(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f} {metric.load(name).unit}" for name, value in scores.items())
