"""Simulators of waves with fewer parameters before training, beside the classical one: one recipe, one data set.

What "A priori compression of convolutional neural networks for wave simulators" (2023) compares; its own meshes and
networks are not public, so the figures are those of recipes/nets/wave_fields.py.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from convkit.cli import figures, show
from convkit.compress import apriori
from convkit.compress import data as datas
from convkit.compress.data import Data, DataRef
from convkit.compress.model import ModelRef, TensorSpec, parse_shape
from convkit.compress.sources import factory
from convkit.compress.training import loop, supervised
from convkit.export.onnx import to_onnx
from convkit.recipes.nets import wave_fields
from convkit.runtimes.bench.candidate import Candidate
from convkit.runtimes.bench.estimate import Interval, point
from convkit.runtimes.bench.measure import Settings, measure
from convkit.runtimes.session import Options
from tests.bench.comparison import THREADS
from tests.bench.limits import Line

DENSE, SHARE, STEPS = "dense", 0.15, 50
FORMS = ("one_way", "cp", "kronecker")
RUNS = range(2000, 2008)
"""Seeds of the runs that networks are rolled out on; none of them was trained on."""
SCHEDULE = loop.Schedule(epochs=24, batch=16, rate=3e-3)
INPUTS = (TensorSpec("input", ("N", 3, wave_fields.SIDE, wave_fields.SIDE), "float32"),)
SECONDS = 10.0
"""Of timing."""
ONE_STEP, MANY_STEPS = 1.1, 1.0
"""Errors over the dense network's, at most."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """One network: parameters, bytes of its file, seconds of training, relative errors in L2 after one step and after
    many, median over runs; time over the dense one's, in its form and merged to ordinary convolutions."""

    name: str
    parameters: int
    size: int
    training: float
    one_step: float
    many_steps: float
    ratio: Interval
    merged: Interval | None


def lines(say: Callable[[str], None], report: dict[str, Any], output: Path) -> Iterator[Line]:
    """A table, pictures of fields in `output`, and the paper's claim as limits for the best form."""
    found = run(say, output)
    report["waves"] = [asdict(one) for one in found]
    dense = found[0]
    rows = [
        [
            one.name,
            f"{one.parameters:,}",
            f"{one.parameters / dense.parameters:.1%}",
            f"{one.size / 1e3:.0f} kB",
            f"{one.training:.0f} s",
            figures.ratio(one.ratio),
            figures.ratio(one.merged) if one.merged else "",
            f"{one.one_step:.4f}",
            f"{one.many_steps:.3f}",
        ]
        for one in found
    ]
    show.table(
        ["simulator", "parameters", "share", "file", "training", "time", "merged", "one step", f"{STEPS} steps"], rows
    )
    best = min(found[1:], key=lambda one: one.one_step)
    yield Line(f"waves, {best.name}", "parameters", point(best.parameters / dense.parameters), "<=", SHARE, "x")
    yield Line(f"waves, {best.name}", "one step", point(best.one_step / dense.one_step), "<=", ONE_STEP, "x")
    many = point(best.many_steps / dense.many_steps)
    yield Line(f"waves, {best.name}", f"{STEPS} steps", many, "<=", MANY_STEPS, "x")


def run(say: Callable[[str], None], output: Path) -> list[Simulated]:
    """The dense network and each form, trained alike."""
    say("waves: finite elements")
    learns, judged = (
        datas.load(DataRef(f"{wave_fields.__name__}:{part}"), INPUTS) for part in ("training", "validation")
    )
    runs = [wave_fields.run(seed, STEPS + 2) for seed in RUNS]
    made: dict[str, nn.Module] = {}
    trained: dict[str, float] = {}
    for name in (DENSE, *FORMS):
        say(f"waves: {name} is trained")
        torch.manual_seed(0)
        network = wave_fields.build()
        made[name] = network if name == DENSE else wave_fields.factored(name, SHARE)
        started = time.monotonic()
        supervised.train(made[name], learns, SCHEDULE, "mse")
        trained[name] = time.monotonic() - started
    rolled = {name: [wave_fields.rolled(network, *one, STEPS) for one in runs] for name, network in made.items()}
    _pictures(output / "waves.png", runs[0][0], {name: fields[0] for name, fields in rolled.items()})
    chosen = {name: apriori.chosen(wave_fields.build(), name, SHARE) for name in FORMS}
    parameters = {name: sum(p.numel() for p in network.parameters()) for name, network in made.items()}
    files = {name: _written(network, output / f"waves_{name}.onnx") for name, network in made.items()}
    for name in FORMS:
        files[f"{name}, merged"] = _written(
            apriori.dense(made[name], chosen[name]), output / f"waves_{name}_dense.onnx"
        )
    say("waves: timed")
    ratios = _timed(files, judged)
    return [
        Simulated(
            name,
            parameters[name],
            files[name].stat().st_size,
            trained[name],
            *_errors(rolled[name], runs),
            ratios[name],
            ratios.get(f"{name}, merged"),
        )
        for name in made
    ]


def _errors(rolled: Sequence[np.ndarray], runs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Relative errors in L2 of the first frame and of the last, median over runs."""
    first, last = [], []
    for fields, (frames, _) in zip(rolled, runs, strict=True):
        for place, errors in ((0, first), (STEPS - 1, last)):
            wanted = frames[place + 2]
            errors.append(float(np.linalg.norm(fields[place] - wanted) / np.linalg.norm(wanted)))
    return float(np.median(first)), float(np.median(last))


def _written(network: nn.Module, path: Path) -> Path:
    shape = parse_shape(f"input:Nx3x{wave_fields.SIDE}x{wave_fields.SIDE}")
    model = factory.from_module(network.eval(), ModelRef("waves:build", shapes=dict([shape])))
    path.write_bytes(to_onnx(model).SerializeToString(deterministic=True))
    return path


def _timed(files: Mapping[str, Path], data: Data) -> dict[str, Interval]:
    options = Options(threads=THREADS)
    candidates = [Candidate(name, "onnxruntime", str(path), options) for name, path in files.items()]
    found = measure(candidates, DENSE, data, Settings(budget=SECONDS * len(files), batch=1))
    return {name: found[name].ratios.get("p50", point(1.0)) for name in files}


def _pictures(path: Path, frames: np.ndarray, rolled: Mapping[str, np.ndarray]) -> None:
    """Fields after some steps: the solver's, and each network's."""
    from matplotlib.figure import Figure

    steps = (0, STEPS // 4, STEPS // 2, STEPS - 1)
    rows = {"finite elements": frames[2:], **rolled}
    figure = Figure(figsize=(2.2 * len(steps), 2.2 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(steps))
    for line, (name, fields) in zip(grid, rows.items(), strict=True):
        for axes, step in zip(line, steps, strict=True):
            axes.imshow(fields[step], cmap="RdBu", vmin=-0.5, vmax=0.5)
            axes.set(xticks=[], yticks=[], title=f"{name}, step {step + 1}")
    figure.savefig(path, dpi=100)
