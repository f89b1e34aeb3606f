"""The Measurement: candidates timed side by side with a baseline, in one run. Nothing is compared across runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from convkit.compress import metric, parts
from convkit.compress.errors import ConvkitError
from convkit.runtimes.bench import estimate, gpu, inputs, machine
from convkit.runtimes.bench.candidate import Candidate
from convkit.runtimes.bench.clock import Clock, SystemClock
from convkit.runtimes.bench.estimate import Interval
from convkit.runtimes.bench.gpu import Conditions, conditions
from convkit.runtimes.bench.others import BUSY
from convkit.runtimes.bench.rounds import Rounds, Schedule, run_rounds
from convkit.runtimes.bench.size import model_digest, model_size
from convkit.runtimes.bench.worker import ProcessWorker, Worker

if TYPE_CHECKING:
    import numpy as np

    from convkit.compress.data import Data
    from convkit.runtimes.session import Runtime

_UNSTEADY = 0.25


@dataclass(frozen=True, slots=True)
class Settings:
    """`budget`: seconds of timing, loading not included. It ends earlier once the interval of every p50 ratio is
    narrower than ± `width` (relative). `batch`: samples a call, None for what the model says. `metrics`: names of
    metrics to score on the data.
    """

    budget: float = 20.0
    width: float = 0.004
    seed: int = 0
    batch: int | None = None
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Workbench:
    """Where candidates run and what tells the time; a simulation brings its own."""

    clock: Clock = field(default_factory=SystemClock)
    open: Callable[[Candidate], Worker] = ProcessWorker


@dataclass(frozen=True, slots=True)
class Result:
    """One candidate's figures: `seconds` a call and `ratios` to the baseline by p10, p50, p90, p99 and mean.

    `throughput` is samples a second at the mean. `size` is None for a model that is no file. `memory` is the peak of
    the process, interpreter and engine included, in bytes.
    """

    name: str
    engine: str
    model: str
    digest: str | None
    seconds: Mapping[str, Interval]
    ratios: Mapping[str, Interval]
    throughput: float
    calls: int
    steady: float
    """Share of the blocks that became steady before they were timed."""
    load_seconds: float
    memory: int
    size: int | None
    metrics: Mapping[str, float]
    gpu: Conditions | None = None
    """What the GPU was like meanwhile; None for engines on the CPU."""
    others: float = 0.0
    """Cores that other programs had meanwhile, as far as it waited for them."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """All candidates of one run; `baseline` is the name of the one that ratios refer to."""

    baseline: str
    results: tuple[Result, ...]
    rounds: int
    batch: int
    data: str | None
    """Digest of the data; None for random inputs."""
    settings: Settings
    machine: Mapping[str, Any]
    warnings: tuple[str, ...]

    def __getitem__(self, name: str) -> Result:
        return next(result for result in self.results if result.name == name)


def measure(
    candidates: Sequence[Candidate],
    baseline: str | None = None,
    data: Callable[[Worker], Data] | Data | None = None,
    settings: Settings | None = None,
    workbench: Workbench | None = None,
    progress: Callable[[float], None] = lambda _share: None,
) -> Measurement:
    """Time `candidates` interleaved; `baseline` names one of them (default: the first).

    `data`: what the calls and the metrics run on, or a function that loads it once the baseline is open; None for
    random inputs. `progress` is told the share of the budget that is spent. Raises ConvkitError for a model that an
    engine refuses or that kills its process.
    """
    settings, workbench = settings or Settings(), workbench or Workbench()
    first = _baseline(candidates, baseline)
    with _opened(candidates, workbench) as workers:
        held = data(workers[first]) if callable(data) else data
        batch = _prepare(workers, first, candidates[first], held, settings)
        schedule = Schedule(settings.budget, settings.seed, _enough(first, settings), progress)
        rounds = run_rounds(workers, schedule, workbench.clock)
        scores = _scores(workers, first, held, batch, settings.metrics)
        results = tuple(
            _result(candidate, worker, _Timing(rounds, index, first, batch, settings.seed), scores[index])
            for index, (candidate, worker) in enumerate(zip(candidates, workers, strict=True))
        )
    facts = machine.fingerprint() | {"engines": machine.engine_versions({c.engine for c in candidates})}
    return Measurement(
        candidates[first].name,
        results,
        len(rounds),
        batch,
        held.digest if held else None,
        settings,
        facts,
        _warnings(results, candidates, facts),
    )


def _baseline(candidates: Sequence[Candidate], name: str | None) -> int:
    names = [candidate.name for candidate in candidates]
    if not names:
        raise ConvkitError("there is nothing to measure", hint="give at least one model")
    if len(set(names)) < len(names):
        raise ConvkitError("two candidates have the same name", hint="every candidate needs a name of its own")
    if name is not None and name not in names:
        raise ConvkitError(f"the baseline {name!r} is no candidate", hint=f"one of: {', '.join(names)}")
    return names.index(name) if name else 0


@contextlib.contextmanager
def _opened(candidates: Sequence[Candidate], workbench: Workbench) -> Iterator[list[Worker]]:
    with contextlib.ExitStack() as stack:
        workers = []
        for candidate in candidates:
            worker = workbench.open(candidate)
            stack.callback(worker.close)
            workers.append(worker)
        yield workers


def _prepare(workers: Sequence[Worker], first: int, baseline: Candidate, data: Data | None, settings: Settings) -> int:
    """Give every worker the same inputs; returns the batch."""
    specs, given = workers[first].inputs, baseline.options.shapes
    inputs.check_shapes(specs, given)
    batch = inputs.batch_size(specs[0], given, settings.batch)
    if data:
        samples = inputs.real(data, batch)
    else:
        samples = inputs.random(specs, inputs.shapes(specs, given, settings.batch), settings.seed)
    for worker in workers:
        worker.prepare(inputs.fitted(worker.inputs, samples))
    return batch


def _enough(baseline: int, settings: Settings) -> Callable[[Rounds], bool]:
    """Stop on how wide the intervals are, never on where they lie: that would favour one verdict."""

    def enough(rounds: Rounds) -> bool:
        base = estimate.block_medians(rounds, baseline)
        others = [index for index in range(len(rounds[0])) if index != baseline]
        ratios = (estimate.paired_ratio(estimate.block_medians(rounds, i), base, settings.seed) for i in others)
        return bool(others) and all(ratio.width <= settings.width for ratio in ratios)

    return enough


def _scores(
    workers: Sequence[Worker], first: int, data: Data | None, batch: int, names: Sequence[str]
) -> list[dict[str, float]]:
    """Each candidate's metrics on all of the data; the baseline's outputs are the reference."""
    if not names:
        return [{} for _ in workers]
    if data is None:
        raise ConvkitError(f"metric {names[0]!r} needs data", hint="give --data")
    reference = _outputs(workers[first], data, batch)
    scores = []
    for worker in workers:
        outputs = reference if worker is workers[first] else _outputs(worker, data, batch)
        if len(outputs) == len(reference):  # other names, as inputs have: it is by place that they go together
            outputs = dict(zip(reference, outputs.values(), strict=True))
        scores.append({name: metric.evaluate(name, outputs, reference, data.labels) for name in names})
    return scores


def _outputs(worker: Worker, data: Data, batch: int) -> dict[str, np.ndarray]:
    """Outputs on all samples [N, ...], also where the model's batch is fixed and the last one is short."""
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, len(data), batch):
        rows = [min(start + i, len(data) - 1) for i in range(batch)]
        sample = inputs.fitted(worker.inputs, [dict(data.batch(rows).arrays)])
        parts.append(worker.run(sample[0]))
    joined = metric.joined({name: [part[name] for part in parts] for name in parts[0]})
    return {name: array[: len(data)] for name, array in joined.items()}


@dataclass(frozen=True, slots=True)
class _Timing:
    """One candidate's place in the rounds."""

    rounds: Rounds
    index: int
    baseline: int
    batch: int
    seed: int


def _result(candidate: Candidate, worker: Worker, timing: _Timing, scores: Mapping[str, float]) -> Result:
    seconds, ratios = estimate.statistics(timing.rounds, timing.index, timing.baseline, timing.seed)
    blocks = [blocks[timing.index] for blocks in timing.rounds]
    return Result(
        name=candidate.name,
        engine=candidate.engine,
        model=candidate.path,
        digest=model_digest(candidate.path),
        seconds=seconds,
        ratios=ratios,
        throughput=timing.batch / seconds["mean"].value,
        calls=sum(len(block.seconds) for block in blocks),
        steady=sum(block.steady for block in blocks) / len(blocks),
        load_seconds=worker.load_seconds,
        memory=worker.memory(),
        size=model_size(candidate.path),
        metrics=scores,
        gpu=conditions([block.gpu for block in blocks]),
        others=estimate.others(timing.rounds, timing.index),
    )


def _warnings(results: Sequence[Result], candidates: Sequence[Candidate], facts: Mapping[str, Any]) -> tuple[str, ...]:
    """What makes the figures less sure than they look."""
    found = [
        f"{result.name}: {1 - result.steady:.0%} of the blocks never became steady"
        for result in results
        if result.steady < 1 - _UNSTEADY
    ]
    found += list(disturbed(results))
    found += [words for candidate in candidates for words in _in_float32(candidate)]
    found += [f"{result.name}: {words}" for result in results if result.gpu for words in gpu.warnings(result.gpu)]
    threads = max(candidate.options.threads for candidate in candidates)
    if threads > facts["usable"]:
        found.append(f"{threads} threads on {facts['usable']} usable cores: threads wait for each other")
    return tuple(found)


def disturbed(results: Sequence[Result]) -> Iterator[str]:
    """What is said where other programs had the cores."""
    most = max(result.others for result in results)
    if most > BUSY:
        yield (
            f"other programs had {most:.1f} cores that candidates waited for: times and ratios may be far from those "
            "of a quiet hour"
        )


def _in_float32(candidate: Candidate) -> Iterator[str]:
    """What is said of a precision that the engine leaves out in silence where the device has it not."""
    runtime: Runtime = parts.load("runtimes", candidate.engine)
    precision = candidate.options.precision
    heeds = any(knob.name == "precision" for knob in runtime.knobs)
    if heeds and precision not in runtime.precisions():
        yield f"{candidate.name}: {candidate.engine} has no {precision} on this device and ran it in f32"
