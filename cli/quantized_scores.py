"""What quantization-aware training is worth: the network in float, rounded, and trained, on the target's engine."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.cli.quantized_start import SECONDS

if TYPE_CHECKING:
    import numpy as np

    from convkit.cli.quantizing import Job
    from convkit.compress.data import Data
    from convkit.compress.model import Model
    from convkit.runtimes.bench.measure import Result

APART, _FLIPPED, _SURE = 0.2, 0.05, 2.0
"""Points of a score that a file and what was trained may be apart, beside what chance makes of it: where the last bit
of a sum flips a code, as many answers at most change, in either direction; and standard deviations of that."""
FLOAT = "float"
"""The network given; the others are named by who asks."""


def measured(job: Job, networks: Mapping[str, Model], judged: Data) -> dict[str, Result]:
    """The files of all, side by side on the target's engine: scores and times."""
    from convkit.export import exporter

    made = exporter.of_engine(job.engine)
    return of_files(job, {name: made.bytes(model, job.target.opset) for name, model in networks.items()}, judged)


def of_files(job: Job, networks: Mapping[str, bytes], judged: Data) -> dict[str, Result]:
    """ONNX files side by side, the network given first."""
    from convkit.cli import quantizing
    from convkit.runtimes.bench.candidate import Candidate
    from convkit.runtimes.bench.measure import Settings, measure
    from convkit.runtimes.session import Options

    with tempfile.TemporaryDirectory(prefix="convkit-") as folder:
        candidates = []
        for place, (name, written) in enumerate({FLOAT: quantizing.original_bytes(job), **networks}.items()):
            path = Path(folder) / f"{place}.onnx"  # names have slashes: int4/uint4
            path.write_bytes(written)
            # Where another engine stands in, what it fuses is not what the target's would.
            fused = "basic" if job.estimated else "all"
            options = Options(threads=job.threads, optimization=fused, batch=job.model.batch or 1)
            candidates.append(Candidate(name, job.engine, str(path), options))
        asked = Settings(budget=SECONDS, metrics=_metrics(job, judged), batch=job.model.batch)
        found = measure(candidates, FLOAT, judged, asked)
        return {result.name: result for result in found.results}


def check(job: Job, judged: Data) -> None:
    """Raise ConvkitError where the labels of `judged` do not fit what the network makes."""
    from convkit.compress import labels, metric

    if judged.labels is not None:
        made = metric.first(_of_one(job, judged))
        labels.check(judged.labels, made, metric.class_axis(made))


def _metrics(job: Job, judged: Data) -> tuple[str, ...]:
    from convkit.compress import metric

    return tuple(metric.defaults(_of_one(job, judged), judged.batch(slice(1)).labels))


def _of_one(job: Job, judged: Data) -> Mapping[str, np.ndarray]:
    """What the network makes of the first sample."""
    from convkit.cli.batches import batching, indices_in_range, run

    few = judged.batch(slice(1))
    with indices_in_range(job.model):
        return run(job.model, few, batching(job.model, few).size)


def simulated(job: Job, model: Model, judged: Data) -> dict[str, float]:
    """What the network scores as it was trained: in torch, in the arithmetic of the target's engine."""
    from convkit.cli import precisions
    from convkit.cli.batches import batching, run
    from convkit.compress import metric

    size, trained = batching(job.model, judged).size, precisions.simulated(model, job.target, {})
    wanted, made = (run(one, judged, size) for one in (job.model, trained))
    return {name: metric.evaluate(name, made, wanted, judged.labels) for name in _metrics(job, judged)}


def apart(report: Mapping[str, Any]) -> str:
    """What the engine's file scores otherwise than the network did in training, by more than APART points and chance;
    "" where they agree. The file is the last of the report's networks."""
    from convkit.compress import metric

    (*_, made) = report["networks"].values()
    most = APART + 100 * _SURE * math.sqrt(_FLIPPED / report["samples"])
    for name, value in report.get("simulated", {}).items():
        found = made["metrics"][name]
        if metric.load(name).unit == "%" and abs(found - value) > most:
            return f"{name} is {found:.4g} % in {report['engine']}, and was {value:.4g} % in training"
    return ""


def told(job: Job, result: Result) -> dict[str, Any]:
    """Of the report; no time of an engine that only stood in for the target's."""
    ratio = None if job.estimated else result.ratios.get("p50")
    return {"metrics": dict(result.metrics), "ratio": None if ratio is None else asdict(ratio)}
