"""Quantize a trained network for a target, measured against the original on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from convkit.cli import options, show, values
from convkit.cli import output as place

if TYPE_CHECKING:
    from convkit.cli.checkpoint import Checkpoint
    from convkit.cli.quantizing import Job
    from convkit.cli.searchspace import Wishes
    from convkit.compress.data import DataRef
    from convkit.compress.model import ModelRef


@click.command
@options.model
@options.data(required=True, what="Calibration samples")
@options.target
@options.output
@click.option(
    "--max-drop",
    type=click.FloatRange(0),
    callback=values.finite,
    default=5.0,
    show_default=True,
    metavar="POINTS",
    help="Agreement or top-1 that may be lost on held-back samples; of PSNR, 1 dB for 5 points.",
)
@click.option(
    "--min-sqnr",
    type=float,
    callback=values.finite,
    metavar="DB",
    help="Signal to quantization noise at the output, at least.  [default: 10.0 for classes, else 20.0]",
)
@click.option(
    "--precision",
    type=values.WORD,
    metavar="NAME",
    help="All layers in these formats: int4, or of weights and activations, int4/uint8.  [default: the target's]",
)
@click.option(
    "--method",
    "methods",
    type=values.WORD,
    multiple=True,
    metavar="NAME",
    help="Round by this method, in place of the usual remedies; `convkit list methods`.",
)
@click.option(
    "--formats",
    type=values.WORD,
    metavar="NAME,...",
    help="Search the format of each layer among these and float: int8,int4,fp8_e4m3; `convkit list formats`.",
)
@click.option("--latency", metavar="BUDGET", help='At most so long a call: "<=4ms", or "<=0.6x" the original\'s.')
@click.option("--size", metavar="BUDGET", help='A file of at most "<=2MB" or "<=0.25x".')
@click.option("--bops", metavar="BUDGET", help='At most "<=20G" bit operations, or "<=0.1x".')
@click.option(
    "--by-labels",
    is_flag=True,
    help="Search by the labels of the data: what formats add to cross-entropy, or to squared error where labels are "
    "the outputs wanted, in place of the distance to the network in float.",
)
@click.option(
    "--keep",
    type=values.WORD,
    multiple=True,
    metavar="LAYER|OPERATOR",
    help="Leave this layer or kind in float.",
)
@click.option(
    "--plan",
    type=values.WORD,
    metavar="FILE",
    help="Apply this plan.yaml, edited by hand perhaps; with --formats or a budget, search all that it does not pin.",
)
@click.option(
    "--tables",
    type=values.WORD,
    metavar="FILE|FOLDER",
    help="Search with the tables.json of an earlier search: neither sensitivity nor latency is measured again.",
)
@click.option(
    "--budget",
    type=click.FloatRange(1),
    callback=values.finite,
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="Time for measuring latency.",
)
@click.option(
    "--tune/--no-tune",
    default=True,
    show_default=True,
    help="Find the engine's fastest knobs first, for the original as for what is made of it.",
)
@options.threads
@options.seed
@options.json
@options.dry_run
@options.resume
def quantize(
    *,
    model: ModelRef,
    data: DataRef,
    target: str | None,
    output: str,
    max_drop: float,
    min_sqnr: float | None,
    precision: str | None,
    methods: tuple[str, ...],
    formats: str | None,
    latency: str | None,
    size: str | None,
    bops: str | None,
    by_labels: bool,
    keep: tuple[str, ...],
    plan: str | None,
    tables: str | None,
    budget: float,
    tune: bool,
    threads: int,
    seed: int,
    as_json: bool,
    dry_run: bool,
    resume: bool,
) -> None:
    """Quantize a trained network for a target, measured against the original on it.

    A quarter of the samples is held back: every result is checked on them, the next remedy tried where it is not as
    good, and the original returned where none is surely faster. OUTPUT gets model.onnx, plan.yaml, manifest.json
    and report.json.

    The original and what is made of it run with the knobs of the engine that are fastest for each (--no-tune leaves all
    at their defaults); plan.yaml names those of the network kept.

    With --formats or a budget (--latency, --size, --bops) the format of each layer is searched, by accuracy and by
    latency measured on the target: the most accurate network within the budgets, else the fastest that is as good.
    Accurate means near the network in float, or right by the labels (--by-labels). A budget out of reach is exit 1,
    with the nearest network and the nearest budget. `convkit choose` solves other budgets from the tables.json that it
    leaves, in seconds.

    What was killed, even by kill -9, goes on with --resume.

    \b
    Examples:
      convkit quantize net.onnx --data calib.npz --target onnxruntime-cpu -o out/
      convkit quantize net.onnx --data photos/ --target openvino-cpu --max-drop 1 -o out/
      convkit quantize net.onnx --data calib.npz --precision int4 --method block_round -o out/
      convkit quantize net.onnx --data calib.npz --formats int8,int4 --size "<=0.2x" -o out/
      convkit quantize net.onnx --data calib.npz --formats int8 --latency "<=4ms" -o out/
      convkit quantize net.onnx --data labelled.npz --formats int8,int4 --size "<=0.2x" --by-labels -o out/
      convkit quantize net.onnx --data calib.npz --tables out/tables.json --latency "<=3ms" -o out3/
      convkit quantize models:resnet18 --weights r18.safetensors --shape x:Nx3x224x224 --data calib.npz -o out/
    """
    from convkit.cli import goodness, quantizing, result, searching, wishing
    from convkit.compress import plan as plans
    from convkit.compress.errors import VerdictError

    place.check(output, plan, dry_run=dry_run)
    limits = goodness.Limits(max_drop, min_sqnr)
    given = {"keep": keep, "plan": plans.read(plan) if plan else None}
    measuring = {"threads": threads, "budget": budget, "tune": tune, "fixed": _fixed()}
    job = _job(model, data, target or "onnxruntime-cpu", limits, {"seed": seed, **given, **measuring})
    job, note = _with_wishes(job, precision, methods)
    budgets = {"latency": latency, "size": size, "bops": bops}
    wishes = wishing.wishes(job, formats, tables, budgets, by_labels=by_labels)
    for words in filter(None, (note, _kept(job))):
        show.note(words)
    if dry_run:
        show.text(_intention(job, wishes, output))
        return
    kept = _checkpoint(job, wishes, output, resume=resume)
    with show.progress(f"quantizing {job.model.name} for {job.target.name}") as say:
        searched = None if wishes is None else searching.search(job, wishes, say, kept)
        outcome = quantizing.quantize(job, say, kept) if searched is None else searched.outcome
    report = result.report(job, outcome, searched)
    result.write(output, job, outcome, report, searched)
    kept.done()
    if as_json:
        show.json(report)
    else:
        result.tell(outcome, output, searched)
    if searched is not None and searched.missed:
        raise VerdictError("; ".join(searched.missed))


PART = quantize


def _fixed() -> tuple[str, ...]:
    """Knobs that the user has set."""
    from click.core import ParameterSource

    source = click.get_current_context().get_parameter_source("threads")
    return () if source in (None, ParameterSource.DEFAULT) else ("threads",)


def _job(model: ModelRef, data: DataRef, target: str, limits: Any, settings: dict[str, Any]) -> Job:  # noqa: ANN401 - Limits, imported late
    from dataclasses import replace

    import torch

    from convkit.cli import foretold
    from convkit.cli.quantizing import Job
    from convkit.compress import data as data_sets
    from convkit.compress import model as models
    from convkit.compress import placement, simulate
    from convkit.compress import target as targets
    from convkit.compress.errors import ConvkitError
    from convkit.runtimes.bench import machine

    torch.set_num_threads(settings["threads"])
    chosen = targets.load(target).on(machine.flags())
    here = foretold.at_hand(chosen)
    loaded = models.load(replace(model, sizes=data_sets.shapes(data)))
    placement.check_keep(loaded.graph, settings["keep"])
    if simulate.is_quantized(loaded):
        raise ConvkitError(f"{model.path} is quantized already", hint="give the float network it was made from")
    settings = {**settings, "tune": settings["tune"] and here, "estimated": not here}
    return Job(model.path, loaded, data_sets.load(data, loaded.inputs), chosen, limits, **settings)


def _with_wishes(job: Job, precision: str | None, methods: tuple[str, ...]) -> tuple[Job, str]:
    """`job` with the formats and methods that are asked for, checked, and what there is to say of the formats."""
    from dataclasses import replace

    from convkit.compress.errors import ConvkitError
    from convkit.compress.search import remedies, space

    if job.plan is not None and (precision or methods):
        raise ConvkitError("--plan says formats and methods already", hint="leave out --precision and --method")
    remedies.with_methods(methods)
    option, note = (None, "") if precision is None else space.precision(precision, job.target)
    return replace(job, methods=methods, precision=option), note


def _kept(job: Job) -> str:
    """What novel convolutions keep in float, by reason."""
    from convkit.compress import membership

    reasons: dict[str, list[str]] = {}
    for name, reason in membership.kept_in(job.model.graph).items():
        reasons.setdefault(reason, []).append(name)
    return "; ".join(f"in float: {', '.join(names)} ({reason})" for reason, names in reasons.items())


def _checkpoint(job: Job, wishes: Wishes | None, output: str, *, resume: bool) -> Checkpoint:
    """Where the work is kept until the output stands, by all that went in."""
    from convkit.cli import checkpoint, journal
    from convkit.compress import parts
    from convkit.runtimes.bench import machine

    inputs = [job.model.digest, job.data.digest, repr(job.target), repr(job.limits), job.seed, job.threads, job.budget]
    asked = [job.keep, job.methods, str(job.precision), job.tune, job.fixed]
    here = [repr(job.model.inputs), job.engine, str(parts.load("runtimes", job.engine).version()), machine.lasting()]
    key = [*inputs, *asked, *here, None if job.plan is None else job.plan.digest, repr(wishes), journal.code()]
    return checkpoint.beside(output, key, resume=resume)


def _intention(job: Job, wishes: Wishes | None, output: str) -> str:
    from convkit.cli import batches, forecast
    from convkit.compress import placement
    from convkit.compress.apply import prepare
    from convkit.compress.search import remedies

    calibration, held = batches.split(job.data, job.seed)
    prepared = prepare(job.model, remedies.EXACT)
    layers = placement.place(prepared.graph, job.target, job.keep)
    weighted = sum(layer.weight is not None for layer in layers.values())
    words = (
        f"would quantize {weighted} layers and {len(layers) - weighted} other operators of {job.model.name} "
        f"for {job.target.name}, calibrate on {len(calibration)} samples, check on {len(held)}, and write {output}"
    )
    return words if wishes is None else f"{words}\n{forecast.words(forecast.forecast(job, wishes, layers))}"
