"""Sensitivity foretold against sensitivity measured, over every layer in every option."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import spearmanr

from convkit.compress import calibration, placement
from convkit.compress import target as targets
from convkit.compress.apply import prepare
from convkit.compress.calibration import Calibration
from convkit.compress.method import Batches
from convkit.compress.model import Model, ModelRef, load
from convkit.compress.option import FLOAT, Option
from convkit.compress.plan import Plan
from convkit.compress.search.sensitivity import Losses, Probes, measured, sensitivity
from convkit.compress.target import Target
from tests.bench.cases import Case

TARGET = "onnxruntime-cpu"
WEIGHTS, ACTIVATIONS = ("fp32", "int8", "int6", "int4", "int3"), ("fp32", "uint8", "uint4")
FOUR = (Option("int8", "uint8"), Option("int4", "uint8"), Option("int8", "uint4"), Option("int4", "fp32"))
"""What the time is told for, beside float."""
METHODS = ("simplify", "fold_batch_norm")
SAMPLES: Mapping[str, tuple[int, int]] = {"lite0": (12, 8), "upconv7": (4, 2)}
"""Samples to foretell on and others to measure on: a sample of upconv7 takes 14 GMACs."""


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rank correlation over all pairs, and over the layers of each option."""

    network: str
    all_pairs: float
    by_option: Mapping[str, float]
    ratio: float
    """Median of foretold over measured."""
    pairs: int
    samples: int
    measured_on: int
    probes: int
    seconds: float
    """To foretell four options a layer."""
    all_seconds: float
    measured_seconds: float


def correlate(case: Case, say: Callable[[str], None]) -> Correlation:
    """Foretold on calibration samples, measured on those that are scored."""
    target, (samples, others) = targets.load(TARGET), SAMPLES[case.name]
    foretold_on, measured_on = _batches(case.calibration, samples), _batches(case.evaluation.arrays, others)
    model, plan = _planned(case, target, foretold_on)
    chosen = _options(plan, [Option(weight, activation) for weight in WEIGHTS for activation in ACTIVATIONS])
    say(f"{case.name}: sensitivity foretold")
    seconds, _ = _timed(lambda: sensitivity(model, target, plan, _options(plan, FOUR), foretold_on))
    all_seconds, found = _timed(lambda: sensitivity(model, target, plan, chosen, foretold_on))
    say(f"{case.name}: sensitivity measured")
    measured_seconds, truth = _timed(lambda: measured(model, target, plan, chosen, measured_on))
    pairs = [(name, option) for name, of_layer in chosen.items() for option in of_layer if option != FLOAT]
    by_option = {option: [pair for pair in pairs if pair[1] == option] for _, option in pairs}
    return Correlation(
        case.name,
        _spearman(found, truth, pairs),
        {str(option): _spearman(found, truth, own) for option, own in by_option.items()},
        float(np.median([found[name][option] / truth[name][option] for name, option in pairs])),
        len(pairs),
        samples,
        others,
        Probes().count,
        seconds,
        all_seconds,
        measured_seconds,
    )


def _planned(case: Case, target: Target, batches: Batches) -> tuple[Model, Plan]:
    """The network as the search prepares it, with ranges for everything that the target can run in INT8."""
    model = load(ModelRef(str(case.model)))
    prepared = prepare(model, METHODS, batches)
    layers = placement.place(prepared.graph, target)
    layers, ranges = calibration.calibrate(prepared, target, layers, Calibration(batches, batches[:1]))
    return prepared, Plan(model.digest, target.name, METHODS, layers, ranges)


def _batches(arrays: Mapping[str, np.ndarray], count: int, size: int = 4) -> Batches:
    """Samples spread over all there are."""
    (length,) = {len(array) for array in arrays.values()}
    rows = np.linspace(0, length - 1, count).astype(int)
    parts = [rows[start : start + size] for start in range(0, count, size)]
    return [{name: torch.from_numpy(array[part]) for name, array in arrays.items()} for part in parts]


def _options(plan: Plan, every: list[Option] | tuple[Option, ...]) -> dict[str, list[Option]]:
    """Options of each layer: one without a weight has its activations alone."""
    alone = list(dict.fromkeys(Option(FLOAT.weight, option.activation) for option in every))
    return {name: list(every) if layer.weight else alone for name, layer in plan.layers.items()}


def _spearman(found: Losses, truth: Losses, pairs: list[tuple[str, Option]]) -> float:
    figures = [[losses[name][option] for name, option in pairs] for losses in (found, truth)]
    return float(spearmanr(*figures).statistic)


def _timed(work: Callable[[], Losses]) -> tuple[float, Losses]:
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found
