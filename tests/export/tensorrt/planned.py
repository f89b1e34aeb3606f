"""Plans for TensorRT with every layer in one format, and the files that they give."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from convkit.compress import calibration, placement
from convkit.compress import target as targets
from convkit.compress.apply import apply_prepared, prepare
from convkit.compress.calibration import Calibration
from convkit.compress.method import Batches
from convkit.compress.model import Model
from convkit.compress.option import Option
from convkit.compress.plan import Plan
from convkit.compress.search import space as spaces
from convkit.compress.target import Target
from convkit.export import exporter
from tests.compress.network import EXACT, batches

TARGET = targets.load("trt-rtx")
NAIVE = replace(TARGET, formats={name: replace(runs, positions=0) for name, runs in TARGET.formats.items()})
"""Who knows nothing of how large kernels may be."""


def planned(
    model: Model, number: str, target: Target = TARGET, others: Mapping[str, str | None] | None = None
) -> tuple[Model, Plan]:
    """`model` with every layer in a format, or in what `others` says of it (None: float), calibrated on normal inputs,
    and the plan that did it."""
    samples = batches(model)
    prepared = prepare(model, EXACT, samples)
    plan = uniform(prepared, number, target, EXACT, samples, others)
    return apply_prepared(prepared, plan, target, samples), plan


def uniform(
    prepared: Model,
    number: str,
    target: Target,
    methods: tuple[str, ...],
    samples: Batches,
    others: Mapping[str, str | None] | None = None,
) -> Plan:
    """The plan of `prepared`, which has been through `methods`, with every layer in a format, or as `others` say."""
    layers = spaces.uniform(prepared, target, placement.place(prepared.graph, target), Option(number, number))
    for name, own in (others or {}).items():
        if own is None:
            del layers[name]
        else:
            layers[name] = replace(layers[name], activation=own, weight=own if layers[name].weight else None)
    layers, ranges = calibration.calibrate(prepared, target, layers, Calibration(samples, samples))
    return Plan(prepared.digest, target.name, methods, layers, ranges)


def written(model: Model, number: str, folder: Path, target: Target = TARGET) -> Path:
    """The file of `model` with every layer in a format; float32 leaves it as it is."""
    folder.mkdir()
    made = model if number == "fp32" else planned(model, number, target)[0]
    return exporter.find(TARGET.name)[0].write(made, folder, TARGET.opset).path
