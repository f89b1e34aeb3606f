"""What `convkit train --switch` does: one training, one stored network, and a file of it for every width."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from convkit.cli import quantized_scores, quantized_start, several_plans, show
from convkit.cli.batches import indices_in_range
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    import onnx

    from convkit.cli.progress import Progress
    from convkit.cli.quantized_training import Training
    from convkit.cli.quantizing import Job
    from convkit.compress.calibration import Calibration
    from convkit.compress.data import Data
    from convkit.compress.model import Model
    from convkit.compress.option import Option
    from convkit.compress.plan import Plan
    from convkit.compress.training.switching import Members, Switch
    from convkit.export.mixed import Decisions
    from convkit.runtimes.bench.measure import Result


def run(training: Training) -> dict[str, Any]:
    """Train, and write the network of all widths into the output; its report."""
    from convkit.cli import quantized_training
    from convkit.compress import plan as plans
    from convkit.compress.training import switching
    from convkit.compress.training.checkpoint import Checkpoint
    from convkit.compress.training.deciders import hawq
    from convkit.export import artifact, switched

    training, job = quantized_start.begun(training)
    learns, held = quantized_start.split(training, job)
    judged = quantized_start.judged(training, job, held)
    started = time.monotonic()
    kept = Checkpoint(training.output, quantized_training.key(training, job), resume=training.resume)
    known = kept.load()
    with indices_in_range(job.model), show.progress(f"training {job.model.name} for {job.target.name}") as say:
        calibration = quantized_start.calibration(job, learns)
        if known:
            planned = {int(bits): plans.loads(text) for bits, text in known[1]["plans"].items()}
            ends = set(known[1]["ends"])
        else:
            planned, ends = _planned(training, job, (learns, held), calibration, say)
        aim = quantized_start.aim(training, job, learns, held)
        switch, rounded = _switch(training, job, planned, calibration, learns)
        training = quantized_start.rated(training, planned.values())
        members = switch.members(ends)
        if training.asked.mixed and not members:
            raise ConvkitError(f"no layer of {job.model.name} is of many widths", hint="leave out --mixed")
        curved: Mapping[str, float] = {}
        if training.asked.mixed:
            say("how curved the loss is, layer by layer")
            curved = hawq.traces(switch.first.exact, aim, training.schedule.batch, job.seed)
        draws = switching.Draws(switch.widths, members, curved, job.seed) if training.asked.mixed else None
        begun = functools.partial(switching.train, switch, aim=aim, schedule=training.schedule, kept=known, draws=draws)
        texts = {"plans": {str(bits): plans.dump(plan) for bits, plan in planned.items()}, "ends": sorted(ends)}
        widest = max(planned)
        whole = switch.first.model
        _, state = quantized_training.trained(training, begun, whole, (learns, aim), (kept, texts), say)
        models = {bits: switched.plain(model) for bits, model in switch.settle().items()}
        beside = _decisions(job, planned, switch, members, curved, calibration).told() if training.asked.mixed else None
        files = {engine: _packed(job, models, engine, beside) for engine in {job.engine, job.target.engine}}
        say(f"scored in {job.engine}")
        results = _measured(job, rounded, files[job.engine], judged)
    made = files[job.target.engine]
    written, alone = (artifact.serialized(one) for one in (made, switched.narrowed(made, widest)))
    report = quantized_training.told(training, job, state, results, started, len(judged))
    report |= {"widths": list(models), "bytes": len(written), "bytes_of_widest": len(alone)}
    quantized_training.write(training, job, planned[widest], written, report)
    kept.done()
    return report


def _packed(job: Job, models: Mapping[int, Model], engine: str, beside: Mapping[str, Any] | None) -> onnx.ModelProto:
    """One file of all widths, as `engine` wants it."""
    from convkit.export import exporter, switched

    made = exporter.of_engine(engine)
    return switched.packed({bits: made.proto(model, job.target.opset) for bits, model in models.items()}, beside)


def _measured(job: Job, rounded: Mapping[str, Model], whole: onnx.ModelProto, judged: Data) -> dict[str, Result]:
    """What rounding alone made, and the networks that the one file gives."""
    from convkit.export import artifact, exporter, switched

    made = exporter.of_engine(job.engine)
    networks = {name: made.bytes(model, job.target.opset) for name, model in rounded.items()}
    own = {f"{bits} bits": artifact.serialized(switched.narrowed(whole, bits)) for bits in switched.widths(whole)}
    return quantized_scores.of_files(job, networks | own, judged)


def _planned(
    training: Training, job: Job, data: tuple[Data, Data], calibration: Calibration, say: Progress
) -> tuple[dict[int, Plan], set[str]]:
    jobs = {str(bits): replace(job, precision=_option(job, bits)) for bits in training.asked.switch}
    found, ends = several_plans.made(jobs, data, calibration, say)
    return {int(bits): plan for bits, plan in found.items()}, ends


def _decisions(
    job: Job,
    planned: Mapping[int, Plan],
    switch: Switch,
    members: Members,
    curved: Mapping[str, float],
    calibration: Calibration,
) -> Decisions:
    """What layers may be made of, and what that loses, as weights are now, and costs."""
    from convkit.cli import searched_costs
    from convkit.compress.training.deciders import hawq
    from convkit.export.mixed import Decision, Decisions

    costs, original = searched_costs.by_bops(
        job, {str(bits): plan for bits, plan in planned.items()}, members, calibration
    )
    merits = hawq.merits(switch, members, curved)
    of = [
        Decision(
            tuple(own),
            {label: -merits[name][label] for label in switch.networks},
            {label: costs.alone(name, label) for label in switch.networks},
        )
        for name, own in members.items()
    ]
    return Decisions(of, costs.problem.fixed.bops, original)


def _option(job: Job, bits: int) -> Option:
    """Weights of so many bits, and the activations that the target has them with: as few bits where it can."""
    from convkit.compress import format as formats
    from convkit.compress.search import space

    signed = formats.load(job.target.activation).symmetric
    option, note = space.precision(f"int{bits}/{'int' if signed else 'uint'}{bits}", job.target)
    if not all(isinstance(formats.load(name), formats.Integer) for name in (option.weight, option.activation)):
        raise ConvkitError(f"{job.target.name} does not switch to {bits} bits: {note}", hint="give other widths")
    return option


def _switch(
    training: Training, job: Job, planned: Mapping[int, Plan], calibration: Calibration, learns: Data
) -> tuple[Switch, dict[str, Model]]:
    """The network in training, and what rounding alone makes of it at each width."""
    from convkit.compress.training.switching import Switch

    networks, rounded = {}, {}
    for bits, plan in planned.items():
        networks[bits], model = quantized_start.network(training, job, plan, calibration)
        rounded[f"{bits} bits, rounded"] = model
    switch = Switch(networks)
    if training.asked.norms:
        switch.begin_norms(quantized_start.seen(training, job, learns))
    return switch, rounded
