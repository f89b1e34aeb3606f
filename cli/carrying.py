"""What commands that decide about a trained network by measuring it on a target do alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from convkit.cli import options, show

if TYPE_CHECKING:
    from convkit.cli.checkpoint import Checkpoint
    from convkit.cli.quantizing import Job
    from convkit.cli.search_options import Settings
    from convkit.cli.searchspace import Wishes
    from convkit.compress.data import DataRef
    from convkit.compress.model import ModelRef


def check_untrained(model: ModelRef, settings: Settings, **given: object) -> None:
    """Raise ConvkitError where what is asked of a network before its training is of trained ones, those options that
    are `given` among it, or it is no function that builds one."""
    from convkit.compress import function
    from convkit.compress.errors import ConvkitError

    given |= {name: getattr(settings, name) for name in ("keep", "plan", "by_labels")}
    wrong = [f"--{name.replace('_', '-')}" for name, value in {**settings.budgets, **given}.items() if value]
    if wrong:
        raise ConvkitError("before training there is nothing to measure", hint=f"leave out {', '.join(wrong)}")
    if not function.names_one(model.path):
        raise ConvkitError(f"{model.path} is no function that builds a network", hint="give MODULE:FUNCTION")


def job(model: ModelRef, data: DataRef, target: str | None, settings: Settings, *, measured: bool = True) -> Job:
    """What is asked for, with its network and data read; the target is the plan's where none is given, or the usual.
    Its engine, or what stands in for that, is to be at hand where anything is `measured`.
    """
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
    usual = options.USUAL_TARGET if plan is None else plan.target
    chosen = targets.load(target or usual).on(machine.flags())
    if plan is not None and plan.target != chosen.name:
        raise ConvkitError(f"the plan is for {plan.target}, not {chosen.name}", hint=f"give --target {plan.target}")
    here = not measured or foretold.at_hand(chosen)
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


def carry_out(
    job: Job,
    wishes: Wishes | None,
    output: str,
    settings: Settings,
    note: str = "",
    known: Mapping[str, Any] | None = None,
) -> None:
    """Decide, write `output`, and tell; raises VerdictError where a budget is out of reach.

    `note` is told before; a dry run tells what would be done. The search begins with the values that are `known`, by
    the names under which it would keep them.
    """
    from convkit.cli import quantizing, result, searching
    from convkit.compress.errors import VerdictError

    for words in filter(None, (note, kept_in_float(job))):
        show.note(words)
    if settings.dry_run:
        show.text(_intention(job, wishes, output, known=bool(known)))
        return
    kept = _checkpoint(job, wishes, output, resume=settings.resume)
    kept.begin(known or {})
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


def kept_in_float(job: Job) -> str:
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


def _intention(job: Job, wishes: Wishes | None, output: str, *, known: bool) -> str:
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
    if wishes is None:
        return words
    return f"{words}\n{forecast.words(forecast.forecast(job, wishes, layers, known=known))}"
