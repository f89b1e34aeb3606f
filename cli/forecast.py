"""The Forecast of a search: how long its stages take and how many full evaluations it makes, before it begins.

One batch is run through the float network; what a stage does is known in passes of that kind, and what is measured on
the engine has a budget of its own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convkit.cli import batches, finishing, forming, laboratory, searching, sensing, tuning
from convkit.cli import timing as timings
from convkit.compress.search import refine

if TYPE_CHECKING:
    from convkit.cli.quantizing import Job
    from convkit.cli.searchspace import Wishes
    from convkit.compress.plan import LayerPlan

_USUAL, _ALL = 2, 12
"""Remedies that are tried in most networks, and all that there are, layers given back to float among them."""
_CANDIDATES = 3
"""Choices that a round measures at most."""
_FINALISTS, _LEAST = 3, 1
"""Networks that the last contest is held of, beside those with room, and those that are always simulated too."""
_CALIBRATION, _EVALUATION, _LEARNING = 20.0, 8.0, 150.0
"""Passes of the float network that these are worth for each sample: ranges found by trying them, the simulation, and
learned rounding."""
_BACKWARD = 4.0
"""Passes that a probe of the sensitivity is worth."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds by stage, and full evaluations at least and at most. It is right to a factor of two or so."""

    seconds: Mapping[str, float]
    least: int
    most: int


def forecast(job: Job, wishes: Wishes, layers: Mapping[str, LayerPlan], *, known: bool = False) -> Forecast:
    """What a search for `wishes` takes, where `layers` are those that have a choice; remedies and sensitivity take
    nothing where they are `known`.
    """
    calibration, held = batches.split(job.data, job.seed)
    by = batches.batching(job.model, calibration)
    single = _pass(job, by.size)
    probe = min(by.probe, len(calibration))
    begun = wishes.tables is not None or (job.plan is not None and bool(job.plan.layers))
    looks = 0 if wishes.budgets else laboratory.BISECTIONS
    evaluation = single * len(held) * _EVALUATION
    few = len(held) if wishes.criterion.by_labels else min(searching.GLANCE, len(held))
    glance = single * few * _EVALUATION
    options = len(layers) * (1 + len(wishes.formats))
    many, timing = len(wishes.precisions), 0.0 if job.estimated else job.budget
    timed = any(budget.quantity == "seconds" for budget in wishes.budgets)
    roomy = len(searching.ROOMS if timed else searching.ROOM)
    variants = len(wishes.forms) * len(forming.SHARES)
    seconds = {
        "remedies": (1 if begun else _USUAL)
        * (evaluation + single * len(calibration) * (0 if begun else _CALIBRATION)),
        "sensitivity": many * single * probe * (_BACKWARD * 4 + options / max(len(layers), 1) * 4),
        "knobs": 2 * tuning.SHARE * job.budget if job.tune else 0.0,
        "latency table": many * timing * (timings.TABLE_SHARE + timings.VARIANT_SHARE * variants),
        "strongest pairs": single * sensing.SAMPLES * sensing.PAIRS,
        "rounds": many * looks * evaluation
        + many * searching.ROUNDS * (timing * laboratory.ROUND_SHARE + _CANDIDATES * (evaluation + glance)),
        "final contest": timing * (1 + finishing.SHARE)
        + 2 * single * probe * _LEARNING
        + many * (_FINALISTS + roomy) * evaluation,
    }
    if wishes.tables is not None:
        seconds |= dict.fromkeys(("sensitivity", "latency table", "strongest pairs"), 0.0)
    if known:
        seconds |= dict.fromkeys(("remedies", "sensitivity"), 0.0)
    rounds = refine.PATIENCE * searching.ROUNDS
    full = rounds * _CANDIDATES + (roomy if timed else 0) if few == len(held) else 0
    tried = 0 if known else 1 if begun else _ALL
    most = tried + many * (looks + full + _FINALISTS + roomy)
    return Forecast(seconds, min(tried, 1) + _LEAST, most)


def _pass(job: Job, size: int) -> float:
    """Seconds of the float network for a sample; the second of two calls."""
    import torch

    batch = batches.tensors(job.data.filled(size))
    with torch.no_grad():
        job.model(batch)
        start = time.perf_counter()
        job.model(batch)
    return (time.perf_counter() - start) / size


def words(found: Forecast) -> str:
    """A line a stage."""
    lines = [f"  {name:<16} {_duration(seconds):>8}" for name, seconds in found.seconds.items() if seconds > 0]
    total = _duration(sum(found.seconds.values()))
    head = (
        f"the search takes about {total}, give or take a factor of two, and makes {found.least} to {found.most} full "
        "evaluations (the simulated network on all samples held back):"
    )
    return "\n".join(
        [
            head,
            *lines,
            "the latency table is kept for this machine: a second search of the network does not measure it again",
        ]
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 100 else f"{max(1, round(seconds))} s"  # noqa: PLR2004 - reads better
