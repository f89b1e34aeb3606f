"""What `convkit train` does with a trained network and formats: quantization-aware training, kept epoch by epoch."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convkit.cli import figures, options, quantized_scores, quantized_start, show, values
from convkit.compress import record
from convkit.compress.errors import ConvkitError
from convkit.compress.training import crew as crews

if TYPE_CHECKING:
    from convkit.cli.progress import Progress
    from convkit.cli.quantizing import Job
    from convkit.compress.data import Data, DataRef
    from convkit.compress.model import Model, ModelRef
    from convkit.compress.plan import Plan
    from convkit.compress.training.checkpoint import Checkpoint
    from convkit.compress.training.crew import Crew
    from convkit.compress.training.loop import Schedule, State
    from convkit.compress.training.quantized import Aim
    from convkit.compress.training.trainable import Network

SCHEMA_VERSION = 1
ROUNDED, TRAINED = "rounded", "trained"
"""Networks that are scored beside float: what rounding makes of it, and what training makes of that."""
_HELD = 0.1
"""Of the samples, held back."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Formats, and how they are trained: the options that make `convkit train` train a quantized network."""

    precision: str | None
    plan: str | None
    target: str | None
    teach: float | None
    ranges: str
    norms: bool
    loader: str | None

    @property
    def quantized(self) -> bool:
        """Whether formats are asked for."""
        return bool(self.precision or self.plan)


_OPTIONS = (
    click.option(
        "--precision",
        type=values.WORD,
        metavar="NAME",
        help="Train the network with its weights and activations in these formats: int8, int4, int4/uint4, fp8_e4m3.",
    ),
    click.option("--plan", type=values.WORD, metavar="FILE", help="Train it in the formats of this plan.yaml."),
    options.target,
    click.option(
        "--teach",
        type=click.FloatRange(0, 1),
        callback=values.finite,
        metavar="SHARE",
        help="Of what --precision learns, the part that the float network says rather than labels.  "
        "[default: 1 without labels, else 0.5]",
    ),
    click.option(
        "--ranges",
        type=click.Choice(["learned", "followed"]),
        default="learned",
        show_default=True,
        help="Ranges of activations: learned by their gradients, or the mean of those that batches have.",
    ),
    click.option(
        "--norms/--no-norms",
        default=False,
        show_default=True,
        help="Normalize behind convolutions while --precision trains; folded into scales at the end.",
    ),
    click.option(
        "--loader",
        type=values.WORD,
        metavar="MODULE:FUNCTION",
        help="Learn, with --precision, from what your function returns, such as a DataLoader; --data calibrates and "
        "judges.",
    ),
)


def settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of Asked; the command gets `formats`."""

    @functools.wraps(function)
    def with_settings(**others: Any) -> object:  # noqa: ANN401 - click's values
        own = {field.name: others.pop(field.name) for field in fields(Asked)}
        return function(formats=Asked(**own), **others)

    for option in reversed(_OPTIONS):
        option(with_settings)
    return with_settings


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
        return _run(training, crew)


def _run(training: Training, crew: Crew) -> dict[str, Any] | None:
    from convkit.compress import plan as plans
    from convkit.compress.training.checkpoint import Checkpoint

    job = quantized_start.job(training)
    learns, held = job.data.split(_HELD, job.seed)
    judged = quantized_start.judged(training, job, held)
    started = time.monotonic()
    key = [training.model, job.model.digest, job.data.digest, training.schedule, training.asked, training.augment]
    key += [training.loss, None if job.plan is None else job.plan.digest]
    kept = Checkpoint(training.output, key, resume=training.resume)
    known = kept.load()
    with show.progress(f"training {job.model.name} for {job.target.name}") as say:
        calibration = quantized_start.calibration(job, learns)
        plan = plans.loads(known[1]["plan"]) if known else quantized_start.planned(job, learns, held, calibration, say)
        aim = quantized_start.aim(training, job, learns, held)
        network, rounded = quantized_start.networks(training, job, plan, calibration, learns)
        state = _trained(training, (network, plan), (learns, aim), (kept, known), crew, say)
        if crew.rank:
            return None
        model = network.settle()
        say(f"timed and scored in {job.engine}")
        results = quantized_scores.measured(job, {ROUNDED: rounded, TRAINED: model}, judged)
    report = {
        "schema_version": SCHEMA_VERSION,
        "losses": state.losses,
        "held_back": state.judged,
        "schedule": asdict(training.schedule),
        "seconds": time.monotonic() - started,
        "samples": len(judged),
        "networks": {name: quantized_scores.told(result) for name, result in results.items()},
        "simulated": quantized_scores.simulated(job, model, judged),
    }
    _write(training, job, plan, model, report)
    kept.done()
    return report


def tell(report: Mapping[str, Any] | None, output: str, *, as_json: bool) -> None:
    """Show the report; nothing on processes but the first."""
    if report is None:
        return
    if as_json:
        show.json(report)
        return
    names = list(report["networks"][quantized_scores.FLOAT]["metrics"])
    rows = [
        [name, *(f"{one['metrics'][key]:.4g}" for key in names), _time(one["ratio"])]
        for name, one in report["networks"].items()
    ]
    show.table(["network", *names, "time"], rows)
    first, best = report["held_back"][0], min(report["held_back"])
    show.text(f"{Path(output) / 'model.onnx'}: {best:.4g} off on what was held back, {first:.4g} before training")


def _time(ratio: Mapping[str, Any] | None) -> str:
    from convkit.runtimes.bench.estimate import Interval

    return "" if ratio is None else figures.ratio(Interval(**ratio))


def _trained(
    training: Training,
    own: tuple[Network, Plan],
    learnt: tuple[Data, Aim],
    checkpoint: tuple[Checkpoint, Any],
    crew: Crew,
    say: Progress,
) -> State:
    from convkit.compress import plan as plans
    from convkit.compress.training import augment, loop, quantized

    (network, plan), (learns, aim), (kept, known) = own, learnt, checkpoint
    schedule, loader = training.schedule, training.asked.loader
    samples = quantized_start.samples(training, network.model, learns, aim)
    if training.augment and len(network.model.inputs[0].shape) != 4:  # noqa: PLR2004 - [N, C, H, W]
        raise ConvkitError("--augment is for images [N, C, H, W]", hint="leave it out")
    chosen = augment.chained(training.augment) if training.augment else None
    count = f"batches of {loader}" if loader else f"{len(learns):,} samples"
    say.found(f"{count}, {len(aim.held[0]):,} samples held back, {len(plan.layers)} layers in their formats")
    state = loop.State()
    how = {"augment": chosen, "kept": known, "shards": training.shards, "crew": crew}
    for learner, state in quantized.train(network, samples, aim, schedule, **how):
        if not crew.rank:
            packed, told = loop.packed(learner, state)
            kept.keep(state.epoch, packed, told | {"plan": plans.dump(plan)})
        say(f"epoch {state.epoch} of {schedule.epochs}: {state.losses[-1]:.5f}, held back {state.judged[-1]:.5f}")
    return state


def _write(training: Training, job: Job, plan: Plan, model: Model, report: Mapping[str, Any]) -> None:
    from convkit.compress import plan as plans
    from convkit.export import exporter

    proto = exporter.of_engine(job.engine).proto(model, job.target.opset)
    with record.output_folder(training.output) as folder:
        record.write_bytes(folder / "model.onnx", bytes(proto.SerializeToString(deterministic=True)))
        record.write_bytes(folder / "plan.yaml", plans.dump(plan).encode())
        digests = {"data": job.data.digest, "model": job.model.digest, "plan": plan.digest}
        manifest = record.manifest(
            command=options.command_line(), digests=digests, seed=training.schedule.seed, threads=training.threads
        )
        record.write_json(folder / record.MANIFEST, manifest)
        record.write_json(folder / "report.json", dict(report))
