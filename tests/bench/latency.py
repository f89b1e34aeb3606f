"""The latency table put to the test: what it predicts of random mixtures of formats, and what these truly take."""

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from convkit.compress import calibration, placement
from convkit.compress import target as targets
from convkit.compress.apply import apply_prepared, prepare
from convkit.compress.calibration import Calibration
from convkit.compress.model import Model, ModelRef, load
from convkit.compress.plan import LayerPlan, Plan, Range
from convkit.compress.target import Target
from convkit.export.onnx import to_onnx
from convkit.runtimes.bench.candidate import Candidate
from convkit.runtimes.bench.estimate import Interval
from convkit.runtimes.bench.measure import Settings
from convkit.runtimes.bench.measure import measure as compare
from convkit.runtimes.latency.measure import Job, measure
from convkit.runtimes.latency.profile import Schedule
from convkit.runtimes.latency.table import LatencyTable, predict
from convkit.runtimes.session import Options
from tests.bench.cases import Case

MIXTURES, SEED, THREADS = 10, 0, 2
_KEPT = (0.15, 0.5, 0.85)
"""Shares of the layers that random mixtures leave in float, in turn."""
_SAMPLES = 4
TABLE_SECONDS = 40.0
FLOAT = "float"


@dataclass(frozen=True, slots=True)
class Mixture:
    """One network of mixed formats: layers in low precision, and its time over the float network's."""

    name: str
    low: int
    predicted: float
    measured: Interval

    @property
    def error(self) -> float:
        """Relative to what was measured."""
        return self.predicted / self.measured.value - 1


@dataclass(frozen=True, slots=True)
class Predictions:
    """All mixtures of a network on an engine; `mapped`: share of the profiled time that belongs to layers."""

    network: str
    engine: str
    precision: str
    mapped: float
    seconds: float
    """That the table took to measure."""
    mixtures: tuple[Mixture, ...]

    @property
    def errors(self) -> list[float]:
        """Absolute errors, the smallest first."""
        return sorted(abs(mixture.error) for mixture in self.mixtures)


@dataclass(slots=True)
class Writer:
    """Makes files of a network with any of its layers in low precision, on quickly found ranges."""

    model: Model
    target: Target
    data: Calibration
    folder: Path
    layers: Mapping[str, LayerPlan] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)
    written: int = 0

    def __post_init__(self) -> None:
        everything = placement.place(self.model.graph, self.target)
        self.layers, self.ranges = calibration.calibrate(self.model, self.target, everything, self.data, ("minmax",))

    def __call__(self, chosen: Mapping[str, LayerPlan]) -> Path:
        layers = {name: self.layers[name] for name in chosen}
        plan = Plan(self.model.digest, self.target.name, (), layers, self.ranges)
        plan = calibration.complete(self.model, self.target, plan, self.data)
        made = to_onnx(apply_prepared(self.model, plan, self.target, self.data.probe), self.target.opset)
        self.written += 1
        path = self.folder / f"{self.written}.onnx"
        path.write_bytes(made.SerializeToString(deterministic=True))
        return path


def foretell(case: Case, target: Target, precision: str, budget: float, say: Callable[[str], None]) -> Predictions:
    """Make the table, then time random mixtures beside the float network for `budget` seconds."""
    methods = ("simplify", "fold_batch_norm", *target.placements[0].get("methods", ()))
    samples = {name: torch.from_numpy(array[:_SAMPLES]) for name, array in case.calibration.items()}
    model = prepare(load(ModelRef(str(case.model))), methods, [samples])
    sample = {name: np.ascontiguousarray(tensor[:1].numpy()) for name, tensor in samples.items()}
    options = Options(threads=THREADS, precision=precision)
    where = f"{case.name} in {target.engine} {precision}"
    with tempfile.TemporaryDirectory() as folder:
        write = Writer(model, target, Calibration([samples], [samples]), Path(folder))
        started = time.perf_counter()
        say(f"{where}: latency table")
        (table,) = measure([Job(model, target, methods, write, options, sample)], Schedule(TABLE_SECONDS))
        taken = time.perf_counter() - started
        say(f"{where}: {MIXTURES} mixtures")
        mixtures = tuple(_mixtures(table, write, options, budget))
    return Predictions(case.name, target.engine, precision, table.mapped, taken, mixtures)


def _mixtures(table: LatencyTable, write: Writer, options: Options, budget: float) -> Iterator[Mixture]:
    chosen = {FLOAT: {}} | dict(_random(write))
    candidates = [Candidate(name, write.target.engine, str(write(low)), options) for name, low in chosen.items()]
    measured = compare(candidates, FLOAT, None, Settings(budget=budget, seed=SEED, batch=1))
    for name, low in list(chosen.items())[1:]:
        formats = {layer: plan.activation for layer, plan in low.items()}
        ratio = predict(table, formats) / predict(table, {})
        yield Mixture(name, len(low), ratio, measured[name].ratios["p50"])


def _random(write: Writer) -> Iterator[tuple[str, Mapping[str, LayerPlan]]]:
    generator = random.Random(SEED)
    for index in range(MIXTURES):
        share = _KEPT[index % len(_KEPT)]
        kept = {name for name in write.layers if generator.random() < share}
        yield f"mixture {index}", placement.place(write.model.graph, write.target, kept)


def run(case: Case, engine: str, budget: float, say: Callable[[str], None]) -> Iterator[Predictions]:
    """In every precision that the engine's float layers have."""
    for precision in ("f32", "bf16") if engine == "openvino" else ("f32",):
        yield foretell(case, targets.load(f"{engine}-cpu"), precision, budget, say)
