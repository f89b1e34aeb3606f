"""What quantization-aware training begins with: formats and ranges, the network in them, and what it is to learn."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from convkit.cli import batches, show
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from convkit.cli.progress import Progress
    from convkit.cli.quantized_options import Asked
    from convkit.cli.quantized_training import Training
    from convkit.cli.quantizing import Job
    from convkit.compress.calibration import Calibration
    from convkit.compress.data import Data
    from convkit.compress.model import Model
    from convkit.compress.plan import Plan
    from convkit.compress.search.remedies import Remedy
    from convkit.compress.training.quantized import Aim
    from convkit.compress.training.samples import Inputs, Samples
    from convkit.compress.training.trainable import Network

SECONDS = 6.0
"""Of timing files that training leaves."""
_SCORED, _CALIBRATED = 2000, 256
"""Samples that are scored at most, and how many calibrate."""
_NORMED = 1024
"""Samples that norms begin with."""
HELD = 0.1
"""Of the samples, held back."""


def job(training: Training) -> Job:
    """The network, its data and its target, as `convkit quantize` has them."""
    from convkit.cli import carrying, search_options
    from convkit.compress.search import space

    asked, nothing = training.asked, {"latency": None, "size": None, "bops": None}
    if sum(bool(one) for one in (asked.precision, asked.plan, asked.switch, asked.search)) > 1:
        raise ConvkitError("--precision, --plan, --switch and --search each say formats", hint="give one of them")
    if asked.mixed and not asked.switch:
        raise ConvkitError("--mixed belongs to --switch", hint="give --switch, or leave out --mixed")
    _check_search(asked)
    how = search_options.Settings(
        max_drop=100.0, min_sqnr=None, budgets=nothing, by_labels=False, keep=(), plan=asked.plan, tables=None,
        budget=SECONDS, tune=False, threads=training.threads, seed=training.schedule.seed, as_json=False,
        dry_run=False, resume=training.resume,
    )  # fmt: skip
    job = carrying.job(training.model, training.data, asked.target, how)
    if job.plan is not None and (job.plan.forms or job.plan.widths):
        raise ConvkitError(
            f"{asked.plan} makes other layers of the network's", hint="train the network that it made, with --precision"
        )
    if training.schedule.batch:
        batches.check(job.model, training.schedule.batch, "--batch")
    if asked.precision is None:
        return job
    option, note = space.precision(asked.precision, job.target)
    if note:
        show.note(note)
    return replace(job, precision=option)


def begun(training: Training) -> tuple[Training, Job]:
    """What is trained, with so many samples to a step as are asked for, else as the network takes, else the usual."""
    from convkit.cli.plain_training import BATCH

    found, schedule = job(training), training.schedule
    if found.estimated:
        stands_in = f"{found.target.stand_in} computes the scores, and no time is told"
        show.note(f"{found.target.about} is not at hand: {stands_in}")
    return replace(training, schedule=replace(schedule, batch=schedule.batch or found.model.batch or BATCH)), found


def _check_search(asked: Asked) -> None:
    limits = bool(asked.bops) + bool(asked.latency)
    if bool(asked.search) != (limits > 0) or ((asked.together or asked.by or asked.widths) and not asked.search):
        raise ConvkitError(
            "--search, its budget, --by, --together and --widths belong together",
            hint="give --search with --bops or --latency",
        )
    if asked.widths and (not asked.bops or asked.by not in (None, "fliqs")):
        raise ConvkitError("--widths are searched within --bops, by fliqs", hint="give --bops, and no other --by")
    if limits > 1:
        raise ConvkitError("--search keeps to one budget", hint="give --bops or --latency")
    if bool(asked.latency) != bool(asked.tables):
        raise ConvkitError(
            "--latency and --tables belong together",
            hint="let `convkit quantize --formats` measure tables first, and give its folder",
        )


def split(training: Training, job: Job) -> tuple[Data, Data]:
    """What is learnt from, and what is held back, both in whole batches where the network takes no others."""
    parts, size = job.data.split(HELD, training.schedule.seed), job.model.batch
    learns, held = parts if size is None else (part.whole(size) for part in parts)
    return learns, held


def judged(training: Training, job: Job, held: Data) -> Data:
    """What networks are scored on: all that the user gives for it, else some of what is held back. Raises ConvkitError
    where its labels do not fit, before an hour of training.
    """
    from convkit.cli import quantized_scores
    from convkit.compress import data as data_sets

    given = training.validation
    found = held.some(_SCORED) if given is None else data_sets.load(given, job.model.inputs)
    quantized_scores.check(job, found)
    return found


def calibration(job: Job, learns: Data) -> Calibration:
    few = learns.some(_CALIBRATED)
    return batches.calibration_of(few, batches.batching(job.model, few))


def planned(job: Job, learns: Data, held: Data, calibration: Calibration, say: Progress) -> Plan:
    """Formats and the ranges that training begins with: of the usual remedies, or of a plan that is given."""
    from convkit.cli import quantizing
    from convkit.compress.search import remedies

    asked = replace(quantizing.task(job, learns, held.some(_CALIBRATED)), data=calibration, good=lambda _: True)
    if job.plan is not None:
        plan, _ = remedies.completed(asked, job.plan)
    else:
        tried = []
        for attempt in remedies.attempts(asked):
            tried.append(attempt)
            say(f"{attempt.remedy}: sqnr {attempt.scores['sqnr']:.1f} dB")
        plan = remedies.best(tried, asked.rank).plan
    if not plan.layers:
        raise ConvkitError(f"{job.target.name} runs no layer of {job.model.name} in these formats", hint="give others")
    return plan


def remedied(
    job: Job, learns: Data, held: Data, calibration: Calibration, remedy: Remedy | None
) -> tuple[Plan, Remedy]:
    """The plan that this remedy makes, or the best of the usual ones, and which that is."""
    from convkit.cli import quantizing
    from convkit.compress.search import remedies

    asked = replace(quantizing.task(job, learns, held.some(_CALIBRATED)), data=calibration, good=lambda _: True)
    asked = asked if remedy is None else replace(asked, remedies=(remedy,))
    best = remedies.best(list(remedies.attempts(asked)), asked.rank)
    return best.plan, next(one for one in asked.remedies if one.name == best.remedy)


def ends(job: Job, plan: Plan, layers: Collection[str], calibration: Calibration) -> set[str]:
    """Of the `layers` with weights the first and the last, and those that read the tensor which one of them reads."""
    from convkit.compress import graph as graphs
    from convkit.compress.apply import prepare

    prepared = prepare(job.model, plan.methods, calibration.probe)
    reads = {graphs.key(node): node.args[0] for node in graphs.computes(prepared.graph) if graphs.key(node) in layers}
    first, last = reads[next(iter(reads))], reads[next(reversed(reads))]
    return {key for key, tensor in reads.items() if tensor in (first, last)}


def networks(training: Training, job: Job, plan: Plan, calibration: Calibration, learns: Data) -> tuple[Network, Model]:
    """The network in training, and what rounding alone makes of it."""
    found, rounded = network(training, job, plan, calibration)
    if training.asked.norms:
        found.begin_norms(seen(training, job, learns))
    return found, rounded


def network(training: Training, job: Job, plan: Plan, calibration: Calibration) -> tuple[Network, Model]:
    """That which is to be trained, whose norms have seen nothing, and what rounding alone makes of it."""
    from convkit.compress.apply import apply_prepared, prepare
    from convkit.compress.model import clone
    from convkit.compress.training.trainable import Network

    prepared = prepare(job.model, plan.methods, calibration.probe, widths=plan.widths, importance=plan.importance)
    rounded = apply_prepared(prepared, plan, job.target, calibration.seen_by(plan.methods))
    own = rounded.replace(graph=clone(rounded.graph))
    asked = training.asked
    found = Network(own, prepared, follow=asked.ranges == "followed", norms=asked.norms)
    if asked.norms and not any(layer.norm for layer in found.layers):
        raise ConvkitError(
            f"no convolution of {job.model.name} has a bias that a norm could stand for", hint="leave out --norms"
        )
    return found, rounded


def rated(training: Training, planned: Iterable[Plan]) -> Training:
    """Where no rate is asked for, with that which suits the formats of weights in these."""
    from convkit.compress import format as formats
    from convkit.compress.training import steps

    if training.schedule.rate:
        return training
    weights = [layer.weight for plan in planned for layer in plan.layers.values() if layer.weight]
    rate = steps.rate(map(formats.load, weights))
    return replace(training, schedule=replace(training.schedule, rate=rate))


def seen(training: Training, job: Job, learns: Data) -> list[Inputs]:
    """Samples that norms begin with, a batch at a time."""
    from convkit.compress.training.distilled import tensors
    from convkit.compress.training.samples import length, taken

    size = training.schedule.batch
    arrays = tensors(job.model, learns.some(max(1, _NORMED // size) * size))
    return [taken(arrays, slice(at, at + size)) for at in range(0, length(arrays), size)]


def aim(training: Training, job: Job, learns: Data, held: Data) -> Aim:
    from convkit.compress.training import supervised
    from convkit.compress.training.distilled import Target, tensors
    from convkit.compress.training.quantized import Aim

    inputs, teach = tensors(job.model, held), training.asked.teach
    if learns.labels is None:
        if training.loss is not None or teach not in (None, 1):
            raise ConvkitError(
                f"{training.data.path} has no labels to learn from", hint="give them, or leave out --loss"
            )
        return Aim(Target(job.model, inputs, training.schedule.batch), 1.0, None, inputs, None)
    teaches = 0.5 if teach is None else teach
    target = Target(job.model, inputs, training.schedule.batch) if teaches else None
    if teaches == 1:
        return Aim(target, 1.0, None, inputs, None)
    name = training.loss or supervised.usual_loss(learns.labels)
    own = supervised.labels(held, name)
    return Aim(target, teaches, supervised.named(name), inputs, own)


def samples(training: Training, model: Model, learns: Data, aim: Aim) -> Samples:
    """What is learnt from: `learns`, or the user's own loader."""
    from convkit.compress.training import supervised
    from convkit.compress.training.distilled import tensors
    from convkit.compress.training.samples import Arrays, Loader

    if training.asked.loader is not None:
        return Loader(training.asked.loader, model.inputs)
    labels = None
    if aim.loss is not None and learns.labels is not None:
        labels = supervised.labels(learns, training.loss or supervised.usual_loss(learns.labels))
    return Arrays(tensors(model, learns), labels)
