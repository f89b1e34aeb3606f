"""What `convkit train --search` does: one training in which the format of each layer is found."""

from __future__ import annotations

import fnmatch
import functools
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from convkit.cli import picture, quantized_scores, quantized_start, searched_costs, several_plans, show
from convkit.cli.batches import indices_in_range
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from convkit.cli.quantized_training import Training
    from convkit.cli.quantizing import Job
    from convkit.compress.calibration import Calibration
    from convkit.compress.data import Data
    from convkit.compress.model import Model
    from convkit.compress.option import Option
    from convkit.compress.plan import Plan
    from convkit.compress.training.choices import Choices
    from convkit.compress.training.costs import Costs
    from convkit.compress.training.mixing import Learner
    from convkit.compress.training.width_costs import WidthCosts

SEARCHED, USUAL = "searched", "fliqs"


def run(training: Training) -> dict[str, Any]:
    """Train, and write the network in the formats that were found into the output; its report."""
    from convkit.cli import quantized_training
    from convkit.compress import plan as plans
    from convkit.compress.training import mixing
    from convkit.compress.training.checkpoint import Checkpoint
    from convkit.export import exporter

    training, job = quantized_start.begun(training)
    decider = mixing.load(training.asked.by or USUAL)
    wish = searched_costs.wished(training.asked, job)
    jobs = _jobs(training, job)
    learns, held = quantized_start.split(training, job)
    judged = quantized_start.judged(training, job, held)
    started = time.monotonic()
    kept = Checkpoint(training.output, [*quantized_training.key(training, job), wish.digest], resume=training.resume)
    known = kept.load()
    words = f"searching {job.model.name} for {job.target.name} while it is trained"
    with indices_in_range(job.model), show.progress(words) as say:
        calibration = quantized_start.calibration(job, learns)
        if known:
            planned = {label: plans.loads(text) for label, text in known[1]["plans"].items()}
            ends = set(known[1]["ends"])
        else:
            planned, ends = several_plans.made(jobs, (learns, held), calibration, say)
        aim = quantized_start.aim(training, job, learns, held)
        choices, rounded = _choices(training, job, planned, ends, (calibration, learns))
        training = quantized_start.rated(training, planned.values())
        costs, target = searched_costs.made(job, planned, choices, ends, wish, calibration)
        search = mixing.Search(costs, target, seed=job.seed)
        begun = functools.partial(
            mixing.train, decider, choices, search, aim=aim, schedule=training.schedule, kept=known
        )
        texts = {"plans": {label: plans.dump(plan) for label, plan in planned.items()}, "ends": sorted(ends)}
        learner, state = quantized_training.trained(
            training, begun, choices.first.model, (learns, aim), (kept, texts), say
        )
        chosen = learner.chosen()
        plan = _mixed(planned, choices, chosen)
        network, _ = quantized_start.network(training, job, plan, calibration)
        choices.fill(network, chosen)
        model = network.settle()
        say(f"scored in {job.engine}")
        results = quantized_scores.measured(job, {**rounded, SEARCHED: model}, judged)
    report = quantized_training.told(training, job, state, results, started, len(judged))
    report["simulated"] = quantized_scores.simulated(job, model, judged)
    report["searched"] = _told(learner, choices, costs, target)
    written = exporter.of_engine(job.target.engine).bytes(model, job.target.opset)
    quantized_training.write(training, job, plan, written, report, _pictures(learner, costs))
    kept.done()
    return report


def _jobs(training: Training, job: Job) -> dict[str, Job]:
    """The job of each format, that of most bits first."""
    from convkit.compress import format as formats
    from convkit.compress.search import space

    options: dict[str, Option] = {}
    for name in training.asked.search:
        options[name], note = space.precision(name, job.target)
        if note:
            show.note(note)
        if not formats.load(options[name].weight).ranged:
            raise ConvkitError(f"--search is among formats with scales, which {name} has not", hint="leave it out")
        same = [other for other, known in options.items() if known == options[name] and other != name]
        if same:
            raise ConvkitError(f"{job.target.name} runs {name} as {same[0]}", hint="leave one of them out")
    first = sorted(options, key=lambda name: -space.bops(1, None, options[name]))
    return {name: replace(job, precision=options[name]) for name in first}


def _choices(
    training: Training, job: Job, planned: Mapping[str, Plan], ends: Collection[str], data: tuple[Calibration, Data]
) -> tuple[Choices, dict[str, Model]]:
    """The network in training, and what rounding alone makes of it in each format."""
    from convkit.compress.training import mixing
    from convkit.compress.training.choices import Choices
    from convkit.compress.training.widths import Widths

    calibration, learns = data
    networks, rounded = {}, {}
    for label, plan in planned.items():
        networks[label], model = quantized_start.network(training, job, plan, calibration)
        rounded[f"{label}, rounded"] = model
    first, *_ = planned.values()
    free = [name for name, layer in first.layers.items() if layer.weight and name not in ends]
    together, widths = list(_together(training.asked.together, free)), None
    if training.asked.widths:
        network, *_ = networks.values()
        layers = [layer.key for layer in network.layers]
        widths = Widths(network.exact, layers, training.asked.widths, calibration.probe)
        if widths.kept:
            show.note(f"channels stay as many as they are in {', '.join(widths.kept)}")
    choices = Choices(networks, mixing.share, together, widths)
    if training.asked.norms:
        choices.begin_norms(quantized_start.seen(training, job, learns))
    return choices, rounded


def _together(patterns: Sequence[str], free: Sequence[str]) -> Iterator[list[str]]:
    for pattern in patterns:
        found = [name for name in free if fnmatch.fnmatchcase(name, pattern)]
        if not found:
            raise ConvkitError(f"--together {pattern!r} names no layer that is searched", hint=f"there is: {free[0]}")
        yield found


def _mixed(planned: Mapping[str, Plan], choices: Choices, chosen: Mapping[str, str]) -> Plan:
    """The plan of which each layer is in the format that was chosen."""
    (first, *_), of = planned.values(), choices.labels(chosen)
    widths = {} if choices.channels is None else choices.channels.chosen(chosen)
    layers = {name: planned[of[name]].layers[name] if name in of else layer for name, layer in first.layers.items()}
    ranges = {key: own for plan in planned.values() for key, own in plan.ranges.items()}
    return replace(first, layers=layers, ranges=ranges, widths=widths)


def _pictures(learner: Learner, costs: Costs | WidthCosts) -> dict[str, bytes]:
    """The policy over time, of what has one: over formats, and over widths where these are decisions."""
    if not learner.updates.history:
        return {}
    labels = list(costs.labels.values())
    formats = [at for at, own in enumerate(labels) if own == tuple(costs.options)]
    widths = [at for at in range(len(labels)) if at not in formats]
    sizes = ["whole", *(f"{at}. narrower" for at in range(1, max((len(labels[at]) for at in widths), default=1)))]
    found: dict[str, bytes] = {}
    for name, rows, titles in (("policy", formats, list(costs.options)), ("policy_widths", widths, sizes)):
        names = [one for at, one in enumerate(costs.members) if at in rows]
        history = [
            [[*epoch[at], *[0.0] * (len(titles) - len(epoch[at]))] for at in rows] for epoch in learner.updates.history
        ]
        drawn = picture.policy(history, names, titles) if rows else {}
        found |= {f"{name}.{suffix}": written for suffix, written in drawn.items()}
    return found


def _told(learner: Learner, choices: Choices, costs: Costs | WidthCosts, target: float) -> dict[str, Any]:
    """What was decided, and how the policy came to it."""
    chosen = learner.chosen()
    of = choices.labels(chosen)
    return {
        "formats": of,
        "layers": dict(Counter(of.values())),
        "widths": {} if choices.channels is None else choices.channels.chosen(chosen),
        "decisions": {name: list(own) for name, own in costs.members.items()},
        "quantity": costs.quantity,
        "cost": costs.of(chosen),
        "target": target,
        "entropy": learner.entropy(),
        "options": list(costs.options),
        "policy": learner.updates.history,
    }
