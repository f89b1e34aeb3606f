"""What every layer takes on the target: tables of the network, and of its variants in forms, measured side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from convkit.cli import tuning
from convkit.compress import record
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from convkit.cli.building import Builder
    from convkit.cli.quantizing import Job as Wanted
    from convkit.cli.searchspace import Means
    from convkit.compress.plan import LayerPlan, Plan
    from convkit.compress.search.tables import Tables
    from convkit.compress.target import Target
    from convkit.runtimes.latency.measure import Job
    from convkit.runtimes.latency.table import LatencyTable

TABLE_SHARE, VARIANT_SHARE = 1.5, 0.3
"""Seconds that the latency table takes, as part of the final measurement's, and those of a variant beside it."""


def tables(means: Means, builder: Builder, plan: Plan, variants: Sequence[Plan]) -> list[LatencyTable]:
    """Of this machine, measured once and kept, in the user's cache and with the search; estimated where the target's
    engine is not at hand. `plan`, and each of `variants`, has in low precision all that may be. Where `plan` has
    nothing in it, there is nothing to tell apart, and it takes no longer than they do.
    """
    from convkit.runtimes.latency import cache, measure, roofline
    from convkit.runtimes.latency.profile import Schedule

    job, plans = means.job, [plan, *variants]
    if job.estimated:
        return [roofline.estimate(builder.shaped(one), job.target, one.methods) for one in plans]
    jobs = [_job(means, builder, one, single=one is plan and bool(one.layers)) for one in plans]
    means.say(f"latency of every layer on {job.target.engine}, float in {jobs[0].options.precision}")
    fingerprints = [measure.fingerprint(one.model, one.target, one.methods, one.options, one.inputs) for one in jobs]
    own = TABLE_SHARE if plan.layers else VARIANT_SHARE
    schedule = Schedule(job.budget * (own + VARIANT_SHARE * len(variants)), job.seed)

    def known() -> list[LatencyTable]:
        return cache.cached(fingerprints, lambda: measure.measure(jobs, schedule))

    # What a search that is resumed has chosen by is not measured anew, however busy the machine was.
    kept = means.kept.folder
    found = known() if kept is None else cache.cached(fingerprints, known, kept, lambda: False)
    if found[0].disturbance.marked:
        spread = f"rounds differed by {found[0].disturbance.spread:.0%}"
        means.say.found(f"the latency table is unsure: {spread}, others use the machine")
    for name in _unbuilt(means.wishes.formats, found[0], job.target) if plan.layers else ():
        means.say.found(f"{job.target.engine} made no network in {name} here: layers in it count as the slowest")
    return found


def _unbuilt(asked: Sequence[str], table: LatencyTable, target: Target) -> list[str]:
    """Floats that are searched and run single layers on `target`, in which none was measured."""
    from convkit.runtimes.latency import builds

    known = {number for kinds in table.layers.values() for number in kinds}
    return [name for name in builds.singles(target) if name in asked and name not in known]


def _job(means: Means, builder: Builder, plan: Plan, *, single: bool) -> Job:
    """What is measured of the network in its own form (`single`), or of a variant: only what all of it takes alike."""
    from convkit.runtimes.latency import builds, measure

    job, options = means.job, tuning.options(means.job, plan.engine)

    def write(layers: Mapping[str, LayerPlan]) -> Path:
        own = ((name, plan.layers.get(name), layer) for name, layer in layers.items())
        known = {name: had if had is not None and _alike(had, layer) else layer for name, had, layer in own}
        # What is rounded and corrected behind quantization changes numbers, and no time.
        return builder.file(builder.network(builder.complete(replace(plan, layers=known, methods=()))))

    sample = dict(job.data.filled(job.model.batch or 1).arrays)
    shape = {"forms": dict(plan.forms), "widths": dict(plan.widths)}
    own = (builds.FLOAT, *((builds.LOW, *builds.singles(job.target)) if plan.layers else ()))
    told = (f"shape {record.digest_json(shape)}",) if plan.forms or plan.widths else ()
    told = told if single else (*told, f"builds {','.join(own)}")
    made = measure.Job(builder.shaped(plan), job.target, (*plan.methods, *told), write, options, sample)
    return made if single else replace(made, builds=own)


def _alike(had: LayerPlan, layer: LayerPlan) -> bool:
    """Whether a layer of the plan runs as a build has it; a pinned one may run otherwise, whose time is another's."""
    return (had.weight, had.activation) == (layer.weight, layer.activation)


def device(job: Wanted) -> dict[str, str]:
    """Digests of what times of the target are measured on, by what it is called."""
    from convkit.compress import parts
    from convkit.runtimes.bench import machine

    engine = [job.engine, str(parts.load("runtimes", job.engine).version())]
    facts = {"machine": machine.lasting(), "engine": engine, "threads": job.threads}
    return {name: record.digest_json(fact) for name, fact in facts.items()}


def check_device(job: Wanted, file: str, tables: Tables) -> None:
    """Raise ConvkitError where the seconds of `tables` were measured elsewhere or otherwise than those here."""
    known = device(job)
    others = [name for name, digest in known.items() if tables.digests.get(name, digest) != digest]
    if others and not tables.estimated:
        what = " and ".join({"threads": "number of threads"}.get(name, name) for name in others)
        raise ConvkitError(
            f"{file} was measured with another {what}", hint="leave --tables out and give --formats, to measure anew"
        )
