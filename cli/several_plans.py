"""Plans of one network in several formats: the same layers and remedies, and what reads the input and makes the output
in the widest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from convkit.cli import quantized_start
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from convkit.cli.progress import Progress
    from convkit.cli.quantizing import Job
    from convkit.compress.calibration import Calibration
    from convkit.compress.data import Data
    from convkit.compress.plan import Plan

_LEAST = 3
"""Layers: the first and the last, which keep the most bits, and one between."""


def made(
    jobs: Mapping[str, Job], data: tuple[Data, Data], calibration: Calibration, say: Progress
) -> tuple[dict[str, Plan], set[str]]:
    """The plan of each of the `jobs`, which are of one network, the widest first; and the layers that keep its formats
    in all of them: the first and the last, whoever reads the tensor that these read, and what the target has no kernel
    for in others.
    """
    (widest, job), *_ = jobs.items()
    *_, narrowest = jobs
    remedy = None
    plans: dict[str, Plan] = {}
    for name, own in reversed(list(jobs.items())):
        say(f"ranges of {name}{' bits' if name.isdecimal() else ''}")
        plans[name], remedy = quantized_start.remedied(own, *data, calibration, remedy)
    whole = plans[widest]
    layers = {key: layer for key, layer in whole.layers.items() if layer.weight}
    if len(layers) < _LEAST:
        raise ConvkitError(
            f"{job.target.name} runs {len(layers)} layers of {job.model.name} in {widest}, too few to choose among",
            hint="give one format, by --precision",
        )
    missing = [key for key in layers if any(key not in plan.layers for plan in plans.values())]
    if len(layers) - len(missing) < _LEAST:
        raise ConvkitError(
            f"{job.target.name} runs fewer than {_LEAST} layers of {job.model.name} in {narrowest}",
            hint=f"leave out {narrowest}",
        )
    kept = quantized_start.ends(job, whole, layers, calibration) | set(missing)

    # What has no weight is in low precision where all formats have it in the same.
    alike = {
        key: layer
        for key, layer in whole.layers.items()
        if not layer.weight and all(plan.layers.get(key) == layer for plan in plans.values())
    }

    def of(plan: Plan) -> Plan:
        own = {key: layer if key in kept else plan.layers[key] for key, layer in layers.items()}
        return replace(plan, layers={**own, **alike}, ranges={**whole.ranges, **plan.ranges})

    return {name: of(plans[name]) for name in jobs}, kept
