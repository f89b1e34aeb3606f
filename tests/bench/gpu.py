"""One network on every engine that the GPU at hand has, in every precision, interleaved in one run."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from convkit.cli import figures, show
from convkit.runtimes.bench.candidate import Candidate
from convkit.runtimes.bench.estimate import point
from convkit.runtimes.bench.measure import Measurement, Settings, measure
from convkit.runtimes.session import Options
from tests import here
from tests.bench.cases import Case
from tests.bench.limits import Line

BATCHES = (1, 32)
EAGER, PLAIN, GRAPH = "eager_cuda", "eager float32", "eager float32, graph"
SEED, _WIDTH = 0, 0.004
AGREEMENT, AGREED = "agreement", 97.5
"""Percent of the photos: of 235, six may be answered in another way."""
_KNOBS: Mapping[str, Mapping[str, Any]] = {
    PLAIN: {},
    GRAPH: {"graphs": True},
    "eager tf32, graph": {"precision": "tf32", "graphs": True},
    "eager fp16": {"precision": "f16"},
    "eager fp16, graph": {"precision": "f16", "graphs": True},
    "eager fp16, graph, channels last": {"precision": "f16", "graphs": True, "channels_last": True},
    "eager bf16, graph, channels last": {"precision": "bf16", "graphs": True, "channels_last": True},
    "compiled fp16, graph, channels last": {
        "precision": "f16",
        "graphs": True,
        "channels_last": True,
        "compile": True,
    },
}
_OTHERS = ("onnxruntime_cuda", "tensorrt", "tensorrt_rtx")


@dataclass(frozen=True, slots=True)
class OnGpu:
    """All candidates with so many samples a call; the first is the baseline."""

    network: str
    batch: int
    measurement: Measurement


def run(case: Case, budget: float, say: Callable[[str], None]) -> Iterator[OnGpu]:
    """The case with each of BATCHES, `budget` seconds of timing each; scored on its evaluation data."""
    for batch in BATCHES:
        candidates = list(_candidates(case, batch))
        say(f"{case.name}: {len(candidates)} candidates, batch {batch}")
        settings = Settings(budget=budget, width=_WIDTH, seed=SEED, batch=batch, metrics=case.metrics)
        yield OnGpu(case.name, batch, measure(candidates, PLAIN, case.evaluation, settings))


def _candidates(case: Case, batch: int) -> Iterator[Candidate]:
    shapes = {name: (batch, *shape[1:]) for name, shape in case.shapes.items()}
    for name, knobs in _KNOBS.items():
        yield Candidate(name, EAGER, str(case.model), Options(shapes=shapes, **knobs))
    for engine in (name for name in _OTHERS if name in here.engines()):
        yield Candidate(f"{engine} float32", engine, str(case.model), Options(shapes=shapes))


def limits_of(found: OnGpu) -> Iterator[Line]:
    """A graph may not cost time, and half the bits not answers."""
    where, results = f"{found.network}, GPU, batch {found.batch}", found.measurement
    yield Line(where, f"p50 of {GRAPH} over {PLAIN}", results[GRAPH].ratios["p50"], "<=", 1.0, "x")
    for result in results.results:
        if AGREEMENT in result.metrics and result.name != PLAIN:
            agreed = point(result.metrics[AGREEMENT])
            yield Line(where, f"answers of {result.name} as in {PLAIN}", agreed, ">=", AGREED, "%")


def as_dict(found: OnGpu) -> dict[str, Any]:
    """As a comparison in the bench's report."""
    engine = f"engines on a GPU, batch {found.batch}"
    return {"network": found.network, "engine": engine, "measurement": dataclasses.asdict(found.measurement)}


def shown(found: OnGpu) -> None:
    """As a table, with what the GPU was like."""
    show.table(*figures.candidates(found.measurement), title=f"{found.network}, batch {found.batch}")
    for line in (*found.measurement.warnings, *figures.gpus(found.measurement)):
        show.text(line)
