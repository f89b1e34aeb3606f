"""Where the target's engine is not at hand: times are estimated from the target's data, and what networks compute is
told by the engine that stands in for it. Neither is ever told as measured on the target."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from convkit.compress import parts
from convkit.compress.errors import NotAvailableError
from convkit.compress.option import Option

if TYPE_CHECKING:
    from convkit.cli.quantizing import Job
    from convkit.compress.plan import Plan
    from convkit.compress.target import Target
    from convkit.runtimes.bench.measure import Measurement
    from convkit.runtimes.latency.table import LatencyTable

_Items = tuple[tuple[str, Any], ...]
_USUAL = ("simplify", "fold_batch_norm")
"""What engines do to a network that is given as it is."""


def at_hand(target: Target) -> bool:
    """Whether the target's engine runs here. Raises NotAvailableError where neither it nor its stand-in does."""
    try:
        parts.load("runtimes", target.engine).version()
        return True
    except NotAvailableError:
        if not target.stand_in:
            raise
    parts.load("runtimes", target.stand_in).version()
    return False


def words(target: Target) -> str:
    """What a person is told of figures that were found without the engine."""
    return f"{target.about} is not at hand: times are estimates, not measured; {target.stand_in} computed the numbers"


def estimator(job: Job) -> Callable[[Plan], float]:
    """Seconds that a network of the job is estimated to take under a plan; one without layers is the network given."""
    from convkit.cli import batches
    from convkit.compress.apply import prepare
    from convkit.runtimes.latency import roofline
    from convkit.runtimes.latency.table import predict

    size = batches.batching(job.model, job.data).size
    sample = batches.tensors(job.data.filled(size))

    @functools.cache
    def table(methods: tuple[str, ...], forms: _Items, widths: _Items) -> LatencyTable:
        made = prepare(job.model, methods, [sample], dict(forms), dict(widths))
        return roofline.estimate(made, job.target, methods)

    def seconds(plan: Plan) -> float:
        known = table(plan.methods or _USUAL, tuple(plan.forms.items()), tuple(plan.widths.items()))
        return predict(known, dict(_kernels(plan, job.target, known)))

    return seconds


def _kernels(plan: Plan, target: Target, table: LatencyTable) -> list[tuple[str, str]]:
    """The layers that run in kernels other than float's, with the format of their activations."""
    from convkit.compress import promotion

    found = []
    for name, layer in plan.layers.items():
        option = Option(layer.weight or layer.activation, layer.activation)
        if layer.activation in table.layers.get(name, ()) and promotion.promote(option, target).saves_time:
            found.append((name, layer.activation))
    return found


def retimed(found: Measurement, seconds: dict[str, float], target: Target) -> Measurement:
    """`found`, whose numbers stand, with `seconds` by name in place of what the stand-in took."""
    from convkit.runtimes.bench.estimate import point

    base = seconds[found.baseline]
    results = tuple(
        replace(
            one,
            seconds=dict.fromkeys(one.seconds, point(seconds[one.name])),
            ratios=dict.fromkeys(one.ratios, point(seconds[one.name] / base)),
            throughput=found.batch / seconds[one.name],
            calls=0,
            memory=0,
            load_seconds=0.0,
        )
        for one in found.results
    )
    return replace(found, results=results, rounds=0, warnings=(words(target),))
