"""The knobs that networks are compared at: the original and what is made of it get the same tuning, each its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convkit.cli.quantizing import Job
    from convkit.compress.data import Data
    from convkit.runtimes.session import Options
    from convkit.runtimes.session.knobs import Knobs

SHARE = 0.15
"""Of the budget, for each of the two."""
_PACE_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Tuning:
    """Knobs of the original, and of the networks made of it, as far as they are not the engine's defaults.

    `pace`: the original's time with its own knobs over its time with the others'.
    """

    original: Knobs = field(default_factory=dict)
    lowered: Knobs = field(default_factory=dict)
    pace: float = 1.0


def packed(found: Tuning) -> dict[str, Any]:
    """JSON of it."""
    return {"original": dict(found.original), "lowered": dict(found.lowered), "pace": found.pace}


def unpacked(text: Mapping[str, Any]) -> Tuning:
    """What `packed` made."""
    return Tuning(text["original"], text["lowered"], text["pace"])


def options(job: Job, knobs: Knobs) -> Options:
    """How the engine runs a network of the job with `knobs`."""
    from convkit.runtimes.session import Options
    from convkit.runtimes.session.knobs import turned

    return turned(Options(threads=job.threads, batch=job.model.batch or 1), job.target.engine, knobs)


def tuning(job: Job, original: Path, lowered: Path | None, data: Data, say: Callable[[str], None]) -> Tuning:
    """The fastest knobs for the file `original`, and for `lowered`, one that stands for all that compete with it.

    Knobs that the plan given names are no matter of choice.
    """
    given: Knobs = {} if job.plan is None else job.plan.engine
    if not job.tune:
        return Tuning(lowered=given)
    own = _tuned(job, original, {}, data, say)
    if lowered is None:
        return Tuning(own, given)
    others = _tuned(job, lowered, given, data, say)
    return Tuning(own, others)


def paced(job: Job, found: Tuning, original: Path, data: Data) -> Tuning:
    """`found` with its pace, for which the original is measured at both."""
    from dataclasses import replace

    from convkit.runtimes.bench.candidate import Candidate
    from convkit.runtimes.bench.measure import Settings, measure

    if found.original == found.lowered:
        return found
    candidates = [
        Candidate(name, job.target.engine, str(original), options(job, knobs))
        for name, knobs in (("lowered", found.lowered), ("own", found.original))
    ]
    asked = Settings(budget=job.budget * _PACE_SHARE, seed=job.seed, batch=job.model.batch)
    measured = measure(candidates, "lowered", data, asked)
    return replace(found, pace=measured["own"].ratios["p50"].value)


def _tuned(
    job: Job, path: Path, given: Knobs, data: Data, say: Callable[[str], None]
) -> Mapping[str, bool | int | str]:
    from convkit.runtimes.bench import tuning as tuner
    from convkit.runtimes.session.knobs import differing

    asked = tuner.Job(
        job.target.engine,
        str(path),
        options(job, given),
        data,
        (*job.fixed, *given),
        job.budget * SHARE,
        job.seed,
        job.model.batch,
    )
    found = tuner.tune(asked, say=say).options
    return differing(found, options(job, {}))
