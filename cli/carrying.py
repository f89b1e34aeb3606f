"""What commands that decide about a trained network by measuring it on a target do alike."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import click

from convkit.cli import options, show, values

if TYPE_CHECKING:
    from convkit.cli.checkpoint import Checkpoint
    from convkit.cli.quantizing import Job
    from convkit.cli.searchspace import Wishes
    from convkit.compress.data import DataRef
    from convkit.compress.model import ModelRef


_OPTIONS = (
    click.option(
        "--max-drop",
        type=click.FloatRange(0),
        callback=values.finite,
        default=5.0,
        show_default=True,
        metavar="POINTS",
        help="Agreement or top-1 that may be lost on held-back samples; of PSNR, 1 dB for 5 points.",
    ),
    click.option(
        "--min-sqnr",
        type=float,
        callback=values.finite,
        metavar="DB",
        help="Signal to quantization noise at the output, at least.  [default: 10.0 for classes, else 20.0]",
    ),
    click.option("--latency", metavar="BUDGET", help='At most so long a call: "<=4ms", or "<=0.6x" the original\'s.'),
    click.option("--size", metavar="BUDGET", help='A file of at most "<=2MB" or "<=0.25x".'),
    click.option("--bops", metavar="BUDGET", help='At most "<=20G" bit operations, or "<=0.1x".'),
    click.option(
        "--by-labels",
        is_flag=True,
        help="Search by the labels of the data: what choices add to cross-entropy, or to squared error where labels "
        "are the outputs wanted, in place of the distance to the network in float.",
    ),
    click.option(
        "--keep",
        type=values.WORD,
        multiple=True,
        metavar="LAYER|OPERATOR",
        help="Leave this layer or kind in float.",
    ),
    click.option(
        "--plan",
        type=values.WORD,
        metavar="FILE",
        help="Apply this plan.yaml, edited by hand perhaps; with formats, forms or a budget, search all that it does "
        "not pin.",
    ),
    click.option(
        "--tables",
        type=values.WORD,
        metavar="FILE|FOLDER",
        help="Search formats with the tables.json of an earlier search: sensitivity and latency are not measured anew.",
    ),
    click.option(
        "--budget",
        type=click.FloatRange(1),
        callback=values.finite,
        default=15.0,
        show_default=True,
        metavar="SECONDS",
        help="Time for measuring latency.",
    ),
    click.option(
        "--tune/--no-tune",
        default=True,
        show_default=True,
        help="Find the engine's fastest knobs first, for the original as for what is made of it.",
    ),
    options.threads,
    options.seed,
    options.json,
    options.dry_run,
    options.resume,
)
"""In the order of their help."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What may be lost, what is asked for, and how it is measured: the options of these commands."""

    max_drop: float
    min_sqnr: float | None
    budgets: Mapping[str, str | None]
    by_labels: bool
    keep: tuple[str, ...]
    plan: str | None
    tables: str | None
    budget: float
    tune: bool
    threads: int
    seed: int
    as_json: bool
    dry_run: bool
    resume: bool


def settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of Settings; the command gets `settings`."""
    names = [field.name for field in fields(Settings) if field.name != "budgets"]

    @functools.wraps(function)
    def with_settings(**others: Any) -> object:  # noqa: ANN401 - click's values
        budgets = {name: others.pop(name) for name in ("latency", "size", "bops")}
        own = {name: others.pop(name) for name in names}
        return function(settings=Settings(budgets=budgets, **own), **others)

    for option in reversed(_OPTIONS):
        option(with_settings)
    return with_settings


def job(model: ModelRef, data: DataRef, target: str, settings: Settings) -> Job:
    """What is asked for, with its network and data read."""
    from dataclasses import replace

    import torch

    from convkit.cli import foretold
    from convkit.cli.goodness import Limits
    from convkit.cli.quantizing import Job
    from convkit.compress import data as data_sets
    from convkit.compress import fitting, placement, simulate
    from convkit.compress import model as models
    from convkit.compress import plan as plans
    from convkit.compress import target as targets
    from convkit.compress.errors import ConvkitError
    from convkit.runtimes.bench import machine

    plan = plans.read(settings.plan) if settings.plan else None
    torch.set_num_threads(settings.threads)
    chosen = targets.load(target).on(machine.flags())
    if plan is not None and plan.target != chosen.name:
        raise ConvkitError(f"the plan is for {plan.target}, not {chosen.name}", hint=f"give --target {plan.target}")
    here = foretold.at_hand(chosen)
    loaded = models.load(replace(model, sizes=data_sets.shapes(data)))
    if plan is not None:
        fitting.check_model(loaded, plan)
    placement.check_keep(loaded.graph, settings.keep)
    if simulate.is_quantized(loaded):
        raise ConvkitError(f"{model.path} is quantized already", hint="give the float network it was made from")
    return Job(
        model.path,
        loaded,
        data_sets.load(data, loaded.inputs),
        chosen,
        Limits(settings.max_drop, settings.min_sqnr),
        settings.seed,
        settings.threads,
        settings.budget,
        settings.keep,
        plan,
        settings.tune and here,
        _fixed(),
        estimated=not here,
    )


def carry_out(job: Job, wishes: Wishes | None, output: str, settings: Settings, note: str = "") -> None:
    """Decide, write `output`, and tell; raises VerdictError where a budget is out of reach.

    `note` is told before; a dry run tells what would be done.
    """
    from convkit.cli import quantizing, result, searching
    from convkit.compress.errors import VerdictError

    for words in filter(None, (note, _kept_in_float(job))):
        show.note(words)
    if settings.dry_run:
        show.text(_intention(job, wishes, output))
        return
    kept = _checkpoint(job, wishes, output, resume=settings.resume)
    with show.progress(f"{_doing(wishes)} {job.model.name} for {job.target.name}") as say:
        searched = None if wishes is None else searching.search(job, wishes, say, kept)
        outcome = quantizing.quantize(job, say, kept) if searched is None else searched.outcome
    report = result.report(job, outcome, searched)
    result.write(output, job, outcome, report, searched)
    kept.done()
    if settings.as_json:
        show.json(report)
    else:
        result.tell(outcome, output, searched)
    if searched is not None and searched.missed:
        raise VerdictError("; ".join(searched.missed))


def _doing(wishes: Wishes | None) -> str:
    if wishes is None or wishes.formats:
        return "quantizing"
    return "shrinking" if wishes.narrow else "factorizing" if wishes.forms else "quantizing"


def _fixed() -> tuple[str, ...]:
    """Knobs that the user has set."""
    from click.core import ParameterSource

    source = click.get_current_context().get_parameter_source("threads")
    return () if source in (None, ParameterSource.DEFAULT) else ("threads",)


def _kept_in_float(job: Job) -> str:
    """What novel convolutions keep in float, by reason."""
    from convkit.compress import membership

    reasons: dict[str, list[str]] = {}
    for name, reason in membership.kept_in(job.model.graph).items():
        reasons.setdefault(reason, []).append(name)
    return "; ".join(f"in float: {', '.join(names)} ({reason})" for reason, names in reasons.items())


def _checkpoint(job: Job, wishes: Wishes | None, output: str, *, resume: bool) -> Checkpoint:
    """Where the work is kept until the output stands, by all that went in."""
    from convkit.cli import checkpoint
    from convkit.compress import code, parts
    from convkit.runtimes.bench import machine

    inputs = [job.model.digest, job.data.digest, repr(job.target), repr(job.limits), job.seed, job.threads, job.budget]
    asked = [job.keep, job.methods, str(job.precision), job.tune, job.fixed]
    here = [repr(job.model.inputs), job.engine, str(parts.load("runtimes", job.engine).version()), machine.lasting()]
    key = [*inputs, *asked, *here, None if job.plan is None else job.plan.digest, repr(wishes), code.digest()]
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
    doing = _doing(wishes)
    what = f"would quantize {weighted} layers and {len(layers) - weighted} other operators of {job.model.name}"
    if doing != "quantizing":
        what = f"would make {job.model.name} faster by {doing} it"
    words = (
        f"{what} for {job.target.name}, calibrate on {len(calibration)} samples, check on {len(held)}, "
        f"and write {output}"
    )
    return words if wishes is None else f"{words}\n{forecast.words(forecast.forecast(job, wishes, layers))}"
