"""What `convkit train` does with a network from labels alone: the weights that a factory takes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.cli import output as place
from convkit.cli import show
from convkit.compress import record
from convkit.compress.errors import ConvkitError, VerdictError

if TYPE_CHECKING:
    from torch import nn

    from convkit.compress.data import Data, DataRef
    from convkit.compress.model import ModelRef
    from convkit.compress.training.augment import Augment
    from convkit.compress.training.checkpoint import Checkpoint
    from convkit.compress.training.loop import Schedule
    from convkit.runtimes.bench.gate import Gate

SCHEMA_VERSION = 1
WEIGHTS, OUTPUT = "weights.safetensors", "output"
BATCH, _SHOWN = 64, 6
"""Samples at a time, and epochs that are shown of many."""


@dataclass(frozen=True, slots=True)
class Training:
    """What is trained on what, how, how it is scored, `most` samples at a time, and where it goes."""

    model: ModelRef
    learns: Data
    judged: Data | None
    schedule: Schedule
    loss: str | None
    augment: tuple[str, ...]
    metric: str | None
    gates: Sequence[Gate]
    most: int
    threads: int
    output: str
    resume: bool


def run(training: Training) -> dict[str, Any]:
    """Train, and write the weights into the output; the report."""
    from convkit.cli.batches import indices

    shapes = training.model.shapes
    with indices([name for name, own in shapes.items() if (own.dtype or "float").startswith(("int", "uint"))]):
        return _run(training)


def _run(training: Training) -> dict[str, Any]:
    from convkit.compress.training import augment, crew
    from convkit.compress.training.checkpoint import Checkpoint
    from convkit.compress.training.supervised import usual_loss

    crew.check_alone("train without --precision or --elastic")
    learns, judged, names = training.learns, training.judged, training.augment
    assert learns.labels is not None  # the command looked  # noqa: S101
    loss = training.loss or usual_loss(learns.labels)
    module, metric = _built(training), training.metric or next((one.quantity for one in training.gates), None)
    if judged is not None:
        _scored(module, judged, metric, training.most)  # what cannot be scored is told before an hour of training
    augment.check(names, [array.ndim for array in learns.arrays.values()], learns.labels.ndim)
    key = [training.model, learns.digest, training.schedule, names, loss]
    kept = Checkpoint(training.output, key, resume=training.resume)
    trained = _trained(training, module, loss, augment.chained(names) if names else None, kept)
    score = {} if judged is None else _scored(module, judged, metric, training.most)
    with record.output_folder(training.output) as folder:
        _write(folder, module)
        digests = {"data": learns.digest, **({"validation": judged.digest} if judged else {})}
        report = _report(trained, loss, score, training.gates)
        place.describe(folder, report, digests=digests, seed=training.schedule.seed, threads=training.threads)
    kept.done()
    return report


def tell(report: Mapping[str, Any], output: str, *, as_json: bool) -> None:
    """Show the report. Raises VerdictError for a gate that does not hold."""
    _show(report, output, as_json=as_json)
    missed = [one["gate"] for one in report["gates"] if not one["holds"]]
    if missed:
        raise VerdictError(f"the trained network misses {missed[0]!r}", hint="train longer, or with another --rate")


@dataclass(frozen=True, slots=True)
class _Trained:
    parameters: int
    losses: Sequence[float]
    seconds: float


def check(model: ModelRef, validation: DataRef | None, metric: str | None, gates: Sequence[Gate]) -> None:
    """Raise ConvkitError for what the plain training does not take."""
    from convkit.compress import function

    if not function.names_one(model.path):
        raise ConvkitError(f"{model.path} is no function that builds a network", hint="give MODULE:FUNCTION")
    if not model.shapes:
        raise ConvkitError(f"the inputs of {model.path} have no shapes", hint="such as --shape x:Nx3x32x32")
    other = next((gate for gate in gates if not gate.is_metric or gate.kind != "absolute"), None)
    if other is not None:
        raise ConvkitError(f"{other.text!r} is no limit on a metric", hint='write "top1 >= 95"')
    named = [metric, *(gate.quantity for gate in gates)] if metric else [gate.quantity for gate in gates]
    if len({*named}) > 1:
        raise ConvkitError(f"one metric is scored, not {' and '.join(dict.fromkeys(named))}", hint="gate that one")
    if gates and validation is None:
        raise ConvkitError("--gate is given without --validation", hint="add --validation")


def batches(model: ModelRef, asked: int | None) -> tuple[int, int]:
    """Samples of a step, and of what is scored at a time: no more than inputs of a fixed batch hold."""
    fixed = {name: own.shape[0] for name, own in model.shapes.items() if own.shape and isinstance(own.shape[0], int)}
    name, most = min(fixed.items(), key=lambda one: one[1], default=("", BATCH))
    if fixed and asked is not None and asked > most:
        raise ConvkitError(f"{name} takes {most} samples at a time, not --batch {asked}", hint="give N in its place")
    return asked or most, most


def loaded(model: ModelRef, data: DataRef, validation: DataRef | None) -> tuple[Data, Data | None]:
    """What it learns from, and what it is scored on."""
    from convkit.compress import data as data_sets
    from convkit.compress.model import TensorSpec

    specs = tuple(TensorSpec(name, own.shape, own.dtype or "float32", own.sample) for name, own in model.shapes.items())
    return data_sets.load(data, specs), None if validation is None else data_sets.load(validation, specs)


def _built(training: Training) -> nn.Module:
    """The network, which a few samples go through. Raises ConvkitError where it does not take them, and where what it
    makes cannot be learnt."""
    from convkit.compress.sources import _aten_trace, factory
    from convkit.compress.training.supervised import ran

    model = training.model
    module = factory.build(model)
    _aten_trace.inputs(module, model.shapes, model.path)
    ran(module, training.learns.filled(min(training.most, training.schedule.batch)), model.path)
    return module


def _trained(training: Training, module: nn.Module, loss: str, augment: Augment | None, kept: Checkpoint) -> _Trained:
    from convkit.compress.training.supervised import train as learn

    start, learns = time.monotonic(), training.learns
    count = sum(parameter.numel() for parameter in module.parameters())
    with show.progress("train") as say:
        say.found(f"{count:,} parameters, {len(learns):,} samples, {loss}")

        def told(epoch: int, value: float) -> None:
            say(f"epoch {epoch}: loss {value:.4f}")

        losses = learn(module, learns, training.schedule, loss, told, augment, kept)
    return _Trained(count, losses, time.monotonic() - start)


def _scored(module: nn.Module, data: Data, metric: str | None, batch: int) -> dict[str, float]:
    from convkit.compress import metric as metrics
    from convkit.compress.labels import are_targets
    from convkit.compress.training.supervised import outputs

    made = {OUTPUT: outputs(module, data, batch)}
    name = metric or metrics.defaults(made, data.labels)[0]
    labels = data.labels
    wanted = {OUTPUT: labels} if labels is not None and are_targets(labels, made[OUTPUT]) else None
    return {name: metrics.evaluate(name, made, wanted, data.labels)}


def _write(folder: Path, module: nn.Module) -> None:
    from safetensors.torch import save

    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in module.state_dict().items()}
    record.write_bytes(folder / WEIGHTS, save(tensors))


def _report(trained: _Trained, loss: str, score: Mapping[str, float], gates: Sequence[Gate]) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "parameters": trained.parameters,
        "loss": loss,
        "losses": list(trained.losses),
        "scores": dict(score),
        "seconds": trained.seconds,
        "gates": [
            {"gate": gate.text, "measured": score[gate.quantity], "holds": _holds(gate, score)} for gate in gates
        ],
    }


def _holds(gate: Gate, score: Mapping[str, float]) -> bool:
    value = score[gate.quantity]
    return value <= gate.limit if gate.sense == "<=" else value >= gate.limit


def _show(report: Mapping[str, Any], output: str, *, as_json: bool) -> None:
    if as_json:
        show.json(report)
        return
    rows = [(epoch, f"{loss:.4f}") for epoch, loss in enumerate(report["losses"], 1)]
    show.table(("epoch", report["loss"]), rows if len(rows) <= _SHOWN else [rows[0], *rows[-_SHOWN + 1 :]])
    scores = ", ".join(f"{name} {value:.4g}" for name, value in report["scores"].items())
    show.text(f"{Path(output) / WEIGHTS}: {report['parameters']:,} parameters{', ' if scores else ''}{scores}")
