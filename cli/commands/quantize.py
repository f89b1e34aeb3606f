"""Quantize a trained network for a target, measured against the original on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from convkit.cli import options, show
from convkit.cli import output as place

if TYPE_CHECKING:
    from convkit.cli.quantizing import Job, Outcome
    from convkit.cli.searching import Searched, Wishes
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
    default=5.0,
    show_default=True,
    metavar="POINTS",
    help="Agreement or top-1 that may be lost on held-back samples; of PSNR, 1 dB for 5 points.",
)
@click.option(
    "--min-sqnr",
    type=float,
    metavar="DB",
    help="Signal to quantization noise at the output, at least.  [default: 10.0 for classes, else 20.0]",
)
@click.option(
    "--precision",
    metavar="NAME",
    help="All layers in these formats: int4, or of weights and activations, int4/uint8.  [default: the target's]",
)
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="NAME",
    help="Round by this method, in place of the usual remedies; `convkit list methods`.",
)
@click.option(
    "--formats",
    metavar="NAME,...",
    help="Search the format of each layer among these and float: int8,int4,fp8_e4m3; `convkit list formats`.",
)
@click.option("--latency", metavar="BUDGET", help='At most so long a call: "<=4ms", or "<=0.6x" the original\'s.')
@click.option("--size", metavar="BUDGET", help='A file of at most "<=2MB" or "<=0.25x".')
@click.option("--bops", metavar="BUDGET", help='At most "<=20G" bit operations, or "<=0.1x".')
@click.option("--keep", multiple=True, metavar="LAYER|OPERATOR", help="Leave this layer or kind in float.")
@click.option("--plan", metavar="FILE", help="Apply this plan.yaml, edited by hand perhaps, instead of searching.")
@click.option(
    "--budget",
    type=click.FloatRange(1),
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="Time for measuring latency.",
)
@options.threads
@options.seed
@options.json
@options.dry_run
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
    keep: tuple[str, ...],
    plan: str | None,
    budget: float,
    threads: int,
    seed: int,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Quantize a trained network for a target, measured against the original on it.

    A quarter of the samples is held back: every result is checked on them, the next remedy tried where it is not as
    good, and the original returned where none is surely faster. OUTPUT gets model.onnx, plan.yaml, manifest.json
    and report.json.

    With --formats or a budget (--latency, --size, --bops) the format of each layer is searched, by accuracy and by
    latency measured on the target: the most accurate network within the budgets, else the fastest that is as good.
    A budget out of reach is exit 1, with the nearest network and the nearest budget.

    \b
    Examples:
      convkit quantize net.onnx --data calib.npz --target onnxruntime-cpu -o out/
      convkit quantize net.onnx --data photos/ --target openvino-cpu --max-drop 1 -o out/
      convkit quantize net.onnx --data calib.npz --precision int4 --method block_round -o out/
      convkit quantize net.onnx --data calib.npz --formats int8,int4 --size "<=0.2x" -o out/
      convkit quantize net.onnx --data calib.npz --formats int8 --latency "<=4ms" -o out/
      convkit quantize models:resnet18 --weights r18.safetensors --shape x:Nx3x224x224 --data calib.npz -o out/
    """
    from convkit.cli import goodness, quantizing, searching
    from convkit.compress import plan as plans
    from convkit.compress.errors import VerdictError

    place.check(output, plan, dry_run=dry_run)
    job = _job(
        model,
        data,
        target or "onnxruntime-cpu",
        goodness.Limits(max_drop, min_sqnr),
        {"seed": seed, "threads": threads, "budget": budget, "keep": keep, "plan": plans.read(plan) if plan else None},
    )
    job = _with_wishes(job, precision, methods)
    wishes = _wishes(job, formats, {"latency": latency, "size": size, "bops": bops})
    if dry_run:
        show.text(_intention(job, output))
        return
    with show.progress(f"quantizing {job.model.name} for {job.target.name}") as say:
        searched = None if wishes is None else searching.search(job, wishes, say)
        outcome = quantizing.quantize(job, say) if searched is None else searched.outcome
    report = _report(job, outcome, searched)
    _write(output, job, outcome, report, searched)
    if as_json:
        show.json(report)
    else:
        _show(outcome, output, searched)
    if searched is not None and searched.missed:
        raise VerdictError("; ".join(searched.missed))


PART = quantize


def _job(model: ModelRef, data: DataRef, target: str, limits: Any, settings: dict[str, Any]) -> Job:  # noqa: ANN401 - Limits, imported late
    from dataclasses import replace

    import torch

    from convkit.cli.quantizing import Job
    from convkit.compress import data as data_sets
    from convkit.compress import model as models
    from convkit.compress import parts, placement, simulate
    from convkit.compress import target as targets
    from convkit.compress.errors import ConvkitError

    torch.set_num_threads(settings["threads"])
    chosen = targets.load(target)
    parts.load("runtimes", chosen.engine).version()
    loaded = models.load(replace(model, sizes=data_sets.shapes(data)))
    placement.check_keep(loaded.graph, settings["keep"])
    if simulate.is_quantized(loaded):
        raise ConvkitError(f"{model.path} is quantized already", hint="give the float network it was made from")
    return Job(model.path, loaded, data_sets.load(data, loaded.inputs), chosen, limits, **settings)


def _with_wishes(job: Job, precision: str | None, methods: tuple[str, ...]) -> Job:
    """`job` with the formats and methods that are asked for, checked."""
    from dataclasses import replace

    from convkit.compress.errors import ConvkitError
    from convkit.compress.search import remedies, space

    if job.plan is not None and (precision or methods):
        raise ConvkitError("--plan says formats and methods already", hint="leave out --precision and --method")
    remedies.with_methods(methods)
    return replace(job, methods=methods, precision=space.precision(precision, job.target) if precision else None)


def _wishes(job: Job, formats: str | None, budgets: dict[str, str | None]) -> Wishes | None:
    """What is asked of a search; None where none is asked for."""
    from convkit.cli.searching import Wishes
    from convkit.compress import budget
    from convkit.compress.errors import ConvkitError
    from convkit.compress.search import space

    given = tuple(budget.parse(name, text) for name, text in budgets.items() if text is not None)
    if formats is None and not given:
        return None
    if job.plan is not None:
        raise ConvkitError("--plan decides every format already", hint="leave out --formats and budgets, or the plan")
    if job.precision is not None or job.methods:
        hint = "leave out --precision and --method: the search tries learned rounding by itself"
        raise ConvkitError("--formats and budgets have the format of each layer searched", hint=hint)
    names = [name.strip() for name in formats.split(",")] if formats else [job.target.weight]
    space.check_formats(names)
    return Wishes(tuple(dict.fromkeys(names)), given)


def _intention(job: Job, output: str) -> str:
    from convkit.cli import batches
    from convkit.compress import placement
    from convkit.compress.apply import prepare

    calibration, held = batches.split(job.data, job.seed)
    prepared = prepare(job.model, ("simplify", "fold_batch_norm"))
    layers = placement.place(prepared.graph, job.target, job.keep)
    weighted = sum(layer.weight is not None for layer in layers.values())
    return (
        f"would quantize {weighted} layers and {len(layers) - weighted} other operators of {job.model.name} "
        f"for {job.target.name}, calibrate on {len(calibration)} samples, check on {len(held)}, and write {output}"
    )


def _report(job: Job, outcome: Outcome, searched: Searched | None) -> dict[str, Any]:
    import dataclasses

    from convkit.cli import goodness, search_report

    best = outcome.plan.layers
    return {
        "schema_version": 1,
        "verdict": outcome.verdict,
        "reason": outcome.reason,
        "target": job.target.name,
        "kept": outcome.kept,
        "quantized_layers": sum(layer.weight is not None for layer in best.values()),
        "held_back_samples": outcome.held_back,
        "remark": goodness.remark(outcome.held_back),
        "attempts": [{"remedy": a.remedy, "good": a.good, "scores": dict(a.scores)} for a in outcome.attempts],
        "networks": [dataclasses.asdict(result) for result in outcome.standing.results],
        "measurement": dataclasses.asdict(outcome.standing.final),
        **({} if searched is None else {"search": search_report.report(searched)}),
    }


def _write(output: str, job: Job, outcome: Outcome, report: dict[str, Any], searched: Searched | None) -> None:
    from convkit.cli import search_report
    from convkit.compress import plan as plans
    from convkit.compress import record

    digests = {"model": job.model.digest, "data": job.data.digest, "plan": outcome.plan.digest}
    manifest = record.manifest(command=options.command_line(), digests=digests, target=job.target.name, seed=job.seed)
    with record.output_folder(output) as folder:
        record.write_bytes(folder / "model.onnx", outcome.model)
        record.write_text(folder / "plan.yaml", plans.dump(outcome.plan))
        record.write_json(folder / "report.json", report)
        if searched is not None:
            search_report.write(searched, folder)
        record.write_json(folder / record.MANIFEST, manifest)


def _show(outcome: Outcome, output: str, searched: Searched | None) -> None:
    from convkit.cli import search_report
    from convkit.cli.contest import ORIGINAL
    from convkit.cli.goodness import remark, tells
    from convkit.compress import metric

    results = outcome.standing.results
    shown = [m for m in results[0].metrics if tells(metric.load(m).unit, outcome.held_back)]
    rows = []
    for result in results:
        time, ratio = result.seconds["p50"], result.ratios["p50"]
        rows.append(
            (
                f"{result.name} *" if result.name == outcome.kept else result.name,
                f"{time.value * 1e3:.2f} ms",
                f"{ratio.value:.3f}x",
                f"{ratio.low:.3f}-{ratio.high:.3f}",
                f"{result.ratios['p10'].value:.3f}x",
                "" if result.size is None else f"{result.size / 1e6:.2f} MB",
                *(_figure(result.metrics[m]) for m in shown),
            )
        )
    title = f"{outcome.verdict}: {outcome.reason}"
    scores = [f"{m} (tells little)" if remark(outcome.held_back) else m for m in shown]
    show.table(("network", "p50", "ratio", "95 %", "undisturbed", "size", *scores), rows, title=title)
    if searched is not None:
        show.text(search_report.words(searched))
    show.text(f"* kept, in {output}" + ("" if outcome.kept == ORIGINAL or searched is not None else f": {_WHY}"))


_WHY = "of those as good, the fastest when nothing else ran (the fastest tenth of the calls, against the original's)"


def _figure(value: float) -> str:
    from convkit.compress import metric

    return "–" if value >= metric.LIMIT_DB else f"{value:.2f}"
