"""An engine whose time is the size of the file: a search on it takes seconds, and is the same each time.

As a program it is convkit with that engine: every costly thing it does is a line in the file LOG, and it kills itself
where the line KILL would be written.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convkit.runtimes.bench.candidate import Candidate
from convkit.runtimes.bench.estimate import Interval, point
from convkit.runtimes.bench.measure import Measurement, Result, Settings
from convkit.runtimes.latency import measure as latency
from convkit.runtimes.latency import roofline
from convkit.runtimes.latency.table import LatencyTable

MEASURE, TABLE = "convkit.runtimes.bench.measure.measure", "convkit.runtimes.latency.measure.measure"
COSTLY = {
    "remedy": "convkit.compress.search.remedies._scored",
    "sensitivity": "convkit.compress.search.sensitivity.sensitivity",
    "truth": "convkit.compress.search.sensitivity.measured",
    "table": TABLE,
    "measure": MEASURE,
}


def measure(
    candidates: Sequence[Candidate], baseline: str, data: object, settings: Settings, *_: object, **__: object
) -> Measurement:
    sizes = {c.name: Path(c.path).stat().st_size for c in candidates}
    results = tuple(result(c, sizes[c.name], sizes[baseline], settings) for c in candidates)
    return Measurement(baseline, results, 1, 1, None, settings, {}, ())


def result(candidate: Candidate, size: int, whole: int, settings: Settings) -> Result:
    names = ("p10", "p50", "p90", "p99", "mean")
    seconds, ratios = dict.fromkeys(names, point(size * 1e-8)), dict.fromkeys(names, around(size / whole))
    scores = dict.fromkeys(settings.metrics, 100.0)
    return Result(
        candidate.name, candidate.engine, candidate.path, None, seconds, ratios, 1.0, 1, 1.0, 0.0, 0, size, scores
    )


def around(value: float) -> Interval:
    return Interval(value, value, value)


def tables(jobs: Sequence[latency.Job], _schedule: object) -> list[LatencyTable]:
    return [table(job) for job in jobs]


def table(job: latency.Job) -> LatencyTable:
    fingerprint = latency.fingerprint(job.model, job.target, job.methods, job.options, job.inputs)
    found = roofline.estimate(job.model, job.target, job.methods)
    return replace(found, estimated=False, fingerprint=fingerprint)


def install(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MEASURE, measure)
    patch.setattr(TABLE, tables)


def logged(event: str, function: Callable[..., Any], log: Path, kill: str) -> Callable[..., Any]:
    def call(*words: object, **options: object) -> Any:
        lines = log.read_text().splitlines() if log.exists() else []
        line = f"{event} {lines.count(event) + 1}"
        if line == kill:
            os.kill(os.getpid(), signal.SIGKILL)
        log.write_text("".join(f"{one}\n" for one in [*lines, event]))
        return function(*words, **options)

    return call


def main() -> None:
    from importlib import import_module

    from convkit.cli.main import main as convkit

    patch = pytest.MonkeyPatch()
    install(patch)
    for event, place in COSTLY.items():
        module, _, name = place.rpartition(".")
        made = logged(event, getattr(import_module(module), name), Path(os.environ["LOG"]), os.environ.get("KILL", ""))
        patch.setattr(place, made)
    convkit(sys.argv[1:])


if __name__ == "__main__":
    main()
