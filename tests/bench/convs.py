"""Novel convolutions on the CPU: what convkit exports beside the layer itself, as its parameters are, in torch."""

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convkit.cli import figures, show
from convkit.compress import parts
from convkit.compress.apply import prepare
from convkit.compress.conv import FOLDER, Conv, Example
from convkit.compress.model import ModelRef, TensorSpec, parse_shape
from convkit.compress.search.remedies import EXACT
from convkit.compress.sources import factory
from convkit.export import exporter
from convkit.runtimes.bench.candidate import Candidate
from convkit.runtimes.bench.clock import SystemClock
from convkit.runtimes.bench.estimate import Interval
from convkit.runtimes.bench.measure import Settings, Workbench, measure
from convkit.runtimes.bench.worker import InlineWorker
from convkit.runtimes.session import NodeTime, Options, open_session
from tests.bench.comparison import THREADS
from tests.bench.limits import Line

LAYER = "torch"
ENGINES = ("onnxruntime", "openvino")
SECONDS = 6.0
"""Of timing for each convolution."""


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds of the layer in torch, and what each engine takes of that."""

    conv: str
    seconds: float
    ratios: Mapping[str, Interval]


def lines(say: Callable[[str], None], report: dict[str, Any]) -> Iterator[Line]:
    """A table of all, and a line for each in the faster engine: it takes no longer than the layer itself."""
    found = list(run(say))
    report["convs"] = [asdict(timed) for timed in found]
    rows = [[t.conv, f"{t.seconds * 1e3:.2f} ms", *(figures.ratio(t.ratios[e]) for e in ENGINES)] for t in found]
    show.table(["conv", LAYER, *ENGINES], rows, title="novel convolutions, over the layer in torch")
    for one in found:
        engine = min(ENGINES, key=lambda name: one.ratios[name].value)
        yield Line(f"{one.conv}, {engine}", "time over the layer's in torch", one.ratios[engine], "<=", 1.0, "x")


class _Layer:
    """A layer as a session: no graph, no folding."""

    def __init__(self, example: Example) -> None:
        torch.set_num_threads(THREADS)
        self._layer = example.layer.eval()
        self.inputs = tuple(TensorSpec(name, (1, *shape), "float32") for name, shape in example.shapes.items())
        self.outputs: tuple[TensorSpec, ...] = (TensorSpec("output", (), "float32"),)

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        del outputs
        with torch.inference_mode():
            made = self._layer(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        return {"output": made.numpy()}

    def profile(self, inputs: Mapping[str, np.ndarray], repeats: int) -> list[NodeTime]:
        """It has no nodes."""
        return []

    def close(self) -> None:
        """There is nothing to close."""


def run(say: Callable[[str], None]) -> Iterator[Timed]:
    """Every part's usual example, with a batch of one, each in a process of its own: behind twenty others' heaps and
    threads in the same one, what moves much memory takes up to twice as long in an engine.
    """
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh, max_tasks_per_child=1) as alone:
        for name in parts.names(FOLDER):
            part: Conv = parts.load(FOLDER, name)
            if part.usual is not None:
                say(f"{name} in torch and {', '.join(ENGINES)}")
                yield alone.submit(_usual, name).result()


def _usual(name: str) -> Timed:
    part: Conv = parts.load(FOLDER, name)
    assert part.usual is not None  # it was asked before
    torch.manual_seed(0)
    return timed(name, part.usual())


def timed(name: str, example: Example) -> Timed:
    """One example, in torch and in every engine."""
    shapes = [parse_shape(f"{key}:{'x'.join(map(str, (1, *shape)))}") for key, shape in example.shapes.items()]
    model = prepare(factory.from_module(example.layer.eval(), ModelRef("convs:usual", shapes=dict(shapes))), EXACT)
    options = Options(threads=THREADS)
    with tempfile.TemporaryDirectory() as folder:
        candidates = [Candidate(LAYER, "eager", name, options)]
        for engine in ENGINES:
            path = Path(folder) / f"{engine}.onnx"
            path.write_bytes(exporter.of_engine(engine).proto(model, exporter.OPSET).SerializeToString())
            candidates.append(Candidate(engine, engine, str(path), options))

        def opened(candidate: Candidate) -> InlineWorker:
            session = _Layer(example) if candidate.name == LAYER else open_session(
                candidate.engine, candidate.path, candidate.options
            )  # fmt: skip
            return InlineWorker(session, SystemClock())

        found = measure(candidates, LAYER, None, Settings(budget=SECONDS, batch=1), Workbench(open=opened))
    return Timed(name, found[LAYER].seconds["p50"].value, {engine: found[engine].ratios["p50"] for engine in ENGINES})
