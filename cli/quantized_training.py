"""What `convkit train` does with a trained network and formats: quantization-aware training, kept epoch by epoch."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.cli import figures, quantized_scores, quantized_start, show
from convkit.cli import output as place
from convkit.cli.batches import indices_in_range
from convkit.compress import record
from convkit.compress.errors import ConvkitError, VerdictError
from convkit.compress.training import crew as crews

if TYPE_CHECKING:
    from convkit.cli.progress import Progress
    from convkit.cli.quantized_options import Asked
    from convkit.cli.quantizing import Job
    from convkit.compress.data import Data, DataRef
    from convkit.compress.model import Model, ModelRef
    from convkit.compress.plan import Plan
    from convkit.compress.training.checkpoint import Checkpoint
    from convkit.compress.training.crew import Crew
    from convkit.compress.training.loop import Learner, Schedule, State
    from convkit.compress.training.quantized import Aim
    from convkit.runtimes.bench.measure import Result

SCHEMA_VERSION = 1
ROUNDED, TRAINED = "rounded", "trained"
"""Networks that are scored beside float: what rounding makes of it, and what training makes of that."""


@dataclass(frozen=True, slots=True)
class Training:
    """What is trained on what, how, and where it goes."""

    model: ModelRef
    data: DataRef
    validation: DataRef | None
    asked: Asked
    schedule: Schedule
    loss: str | None
    augment: tuple[str, ...]
    shards: int
    threads: int
    output: str
    resume: bool


def run(training: Training) -> dict[str, Any] | None:
    """Train, and write the network into the output; its report. None on a process that is not the first."""
    with crews.crew() as crew:
        if crew.size > 1 and (training.asked.norms or training.asked.ranges != "learned"):
            raise ConvkitError(
                "processes do not share statistics of batches", hint="leave out --norms and --ranges followed"
            )
        alone = "--switch" if training.asked.switch else "--search" if training.asked.search else ""
        if not alone:
            return _run(training, crew)
        if crew.size > 1 or training.shards > 1:
            raise ConvkitError(f"{alone} trains in one process", hint="leave out --shards and torchrun")
    from convkit.cli import searched_training, switched_training

    return switched_training.run(training) if training.asked.switch else searched_training.run(training)


def _run(training: Training, crew: Crew) -> dict[str, Any] | None:
    from convkit.compress import plan as plans
    from convkit.compress.training import quantized
    from convkit.compress.training.checkpoint import Checkpoint
    from convkit.export import exporter

    training, job = quantized_start.begun(training)
    learns, held = quantized_start.split(training, job)
    judged = quantized_start.judged(training, job, held)
    started = time.monotonic()
    kept = Checkpoint(training.output, key(training, job), resume=training.resume)
    known = kept.load()
    with indices_in_range(job.model), show.progress(f"training {job.model.name} for {job.target.name}") as say:
        calibration = quantized_start.calibration(job, learns)
        plan = plans.loads(known[1]["plan"]) if known else quantized_start.planned(job, learns, held, calibration, say)
        say.found(f"{len(plan.layers)} layers in their formats")
        aim = quantized_start.aim(training, job, learns, held)
        network, rounded = quantized_start.networks(training, job, plan, calibration, learns)
        training = quantized_start.rated(training, [plan])
        begun = functools.partial(
            quantized.train, network, aim=aim, schedule=training.schedule, kept=known, shards=training.shards, crew=crew
        )
        keeps = None if crew.rank else kept
        _, state = trained(training, begun, network.model, (learns, aim), (keeps, {"plan": plans.dump(plan)}), say)
        if crew.rank:
            return None
        model = network.settle()
        say(f"scored in {job.engine}")
        results = quantized_scores.measured(job, {ROUNDED: rounded, TRAINED: model}, judged)
    report = told(training, job, state, results, started, len(judged))
    report["simulated"] = quantized_scores.simulated(job, model, judged)
    write(training, job, plan, exporter.of_engine(job.target.engine).bytes(model, job.target.opset), report)
    kept.done()
    return report


def key(training: Training, job: Job) -> list[object]:
    """What a training hangs on: one that was killed goes on where this is the same."""
    asked = [training.model, job.model.digest, job.data.digest, training.schedule, training.asked, training.augment]
    asked.append(training.shards)
    return [*asked, training.loss, None if job.plan is None else job.plan.digest]


def told(
    training: Training, job: Job, state: State, results: Mapping[str, Result], started: float, samples: int
) -> dict[str, Any]:
    """How it went, for the report."""
    return {
        "schema_version": SCHEMA_VERSION,
        "losses": state.losses,
        "held_back": state.judged,
        "schedule": asdict(training.schedule),
        "seconds": time.monotonic() - started,
        "learning_seconds": state.seconds,
        "samples": samples,
        "engine": job.engine,
        "networks": {name: quantized_scores.told(job, result) for name, result in results.items()},
    }


def tell(report: Mapping[str, Any] | None, output: str, *, as_json: bool) -> None:
    """Show the report; nothing on processes but the first. Raises VerdictError where the engine scores otherwise."""
    if report is None:
        return
    if as_json:
        show.json(report)
    else:
        _show(report, output)
    apart = quantized_scores.apart(report)
    if apart:
        raise VerdictError(f"the file is not what was trained: {apart}", hint=f"report.json in {output} has all scores")


def _show(report: Mapping[str, Any], output: str) -> None:
    names = list(report["networks"][quantized_scores.FLOAT]["metrics"])
    rows = [
        [name, *(f"{one['metrics'][key]:.4g}" for key in names), _time(one["ratio"])]
        for name, one in report["networks"].items()
    ]
    show.table(["network", *names, "time"], rows)
    searched = report.get("searched")
    if searched:
        layers = ", ".join(f"{count} in {name}" for name, count in searched["layers"].items())
        widths = "".join(f", {name} {width} wide" for name, width in searched["widths"].items())
        show.text(f"{layers}{widths}; {_cost(searched['quantity'], searched['cost'], searched['target'])}")
    first, now = (
        report["held_back"][0],
        report["held_back"][-1] if searched and searched["policy"] else min(report["held_back"]),
    )
    show.text(f"{Path(output) / 'model.onnx'}: {now:.4g} off on what was held back, {first:.4g} before training")


def _cost(quantity: str, cost: float, target: float) -> str:
    if quantity == "seconds":
        return f"{figures.milliseconds(cost)} of {figures.milliseconds(target)} ms, by the tables"
    return f"{cost / 1e9:.4g} G bit operations of {target / 1e9:.4g} G"


def _time(ratio: Mapping[str, Any] | None) -> str:
    from convkit.runtimes.bench.estimate import Interval

    return "" if ratio is None else figures.ratio(Interval(**ratio))


def trained(
    training: Training,
    begun: Callable[..., Iterator[tuple[Learner, State]]],
    model: Model,
    learnt: tuple[Data, Aim],
    keeps: tuple[Checkpoint | None, Mapping[str, object]],
    say: Progress,
) -> tuple[Any, State]:
    """The learner and its last state: go through what `begun` gives of samples and their augmentation, and keep every
    epoch with what belongs to it."""
    from convkit.compress.training import augment, loop
    from convkit.compress.training.samples import length

    (learns, aim), (kept, beside) = learnt, keeps
    schedule, loader = training.schedule, training.asked.loader
    samples = quantized_start.samples(training, model, learns, aim)
    labels = learns.labels.ndim if aim.loss is not None and learns.labels is not None else 1
    augment.check(training.augment, [len(spec.shape) for spec in model.inputs], labels)
    chosen = augment.chained(training.augment) if training.augment else None
    count = f"batches of {loader}" if loader else f"{len(learns):,} samples"
    say.found(f"{count}, {length(aim.held):,} samples held back")
    learner, state = None, loop.State()
    for learner, state in begun(samples=samples, augment=chosen):
        if kept is not None:
            tensors, where = loop.packed(learner, state)
            kept.keep(state.epoch, tensors, where | dict(beside))
        say(f"epoch {state.epoch} of {schedule.epochs}: {state.losses[-1]:.5f}, held back {state.judged[-1]:.5f}")
    return learner, state


def write(
    training: Training,
    job: Job,
    plan: Plan,
    written: bytes,
    report: Mapping[str, Any],
    pictures: Mapping[str, bytes] | None = None,
) -> None:
    """The network, its plan, the report and pictures into the output."""
    from convkit.compress import plan as plans

    with record.output_folder(training.output) as folder:
        record.write_bytes(folder / record.MODEL, written)
        record.write_text(folder / record.PLAN, plans.dump(plan))
        digests = {"data": job.data.digest, "model": job.model.digest, "plan": plan.digest}
        facts: dict[str, Any] = {"target": job.target.name, "seed": training.schedule.seed, "threads": training.threads}
        place.describe(folder, report, digests=digests, **facts)
        for name, picture in (pictures or {}).items():
            record.write_bytes(folder / name, picture)
