"""Train a network from labels, for recipes that begin without weights.

The plain loop: AdamW with one cycle of the learning rate. What it leaves is weights.safetensors, which every command
takes as --weights.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convkit.cli import options, show, values
from convkit.cli import output as place
from convkit.compress import record
from convkit.compress.errors import ConvkitError, VerdictError
from convkit.compress.training.supervised import LOSSES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from convkit.compress.data import Data, DataRef
    from convkit.compress.model import ModelRef
    from convkit.compress.training.augment import Augment
    from convkit.compress.training.supervised import Schedule
    from convkit.runtimes.bench.gate import Gate

SCHEMA_VERSION = 1
WEIGHTS, OUTPUT = "weights.safetensors", "output"
_BATCH, _SHOWN = 64, 6
"""Samples at a time, and epochs that are shown of many."""
_RATE, _ELASTIC_RATE = 3e-3, 0.1
"""Of AdamW, and of the gradient descent with momentum that elastic networks are trained by."""


@click.command
@options.model
@options.data(required=True, what="What it learns from, with labels")
@click.option("--validation", type=options.DataSet(), metavar="PATH", help="What it is scored on, with labels.")
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True, help="Passes over the data.")
@click.option("--batch", type=click.IntRange(1), help=f"Samples of one step.  [default: {_BATCH}, or all it takes]")
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    callback=values.finite,
    help=f"Largest learning rate.  [default: {_RATE}; of --elastic {_ELASTIC_RATE}]",
)
@click.option("--loss", type=click.Choice(LOSSES), help="What is made least.  [default: by the labels]")
@click.option(
    "--elastic",
    metavar="KIND,...",
    help="Train all members of the network at once: width, depth, kernel; `convkit shrink` picks among them.",
)
@click.option(
    "--delay",
    type=click.FloatRange(0, 1),
    callback=values.finite,
    default=0.5,
    show_default=True,
    help="Part of the epochs in which the whole network of --elastic is trained alone.",
)
@click.option(
    "--warm",
    type=click.FloatRange(0),
    callback=values.finite,
    default=2.0,
    show_default=True,
    metavar="EPOCHS",
    help="Before that, those in which the rate of its members rises.",
)
@click.option(
    "--shards",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Parts of a batch of --elastic, "
    "run each for itself: on as many processes as torchrun starts, to the same result.",
)
@click.option("--augment", metavar="NAME,...", help="For images: flip, shift.")
@click.option("--metric", metavar="NAME", help="What --validation is scored by.  [default: top1, or psnr of arrays]")
@click.option("--gate", "gates", multiple=True, metavar="GATE", help='Exit 1 unless it holds: "top1 >= 95".')
@options.threads
@options.seed
@options.output
@options.json
@options.resume
def train(
    *,
    model: ModelRef,
    data: DataRef,
    validation: DataRef | None,
    epochs: int,
    batch: int | None,
    rate: float | None,
    loss: str | None,
    elastic: str | None,
    delay: float,
    warm: float,
    shards: int,
    augment: str | None,
    metric: str | None,
    gates: Sequence[str],
    threads: int,
    seed: int,
    output: str,
    as_json: bool,
    resume: bool,
) -> None:
    """Train a network from labels.

    With --elastic it is trained with all its members, which have fewer channels, fewer residual blocks and smaller
    kernels, in one set of weights (DεpS): OUTPUT gets a family, of which `convkit shrink` makes networks for as many
    targets as there are. It goes on with --resume where it was killed, and runs on many processes under torchrun.

    \b
    Examples:
      convkit train models:build --shape x:Nx1x16x16 --data train.npz --validation val.npz -o out/
      convkit train models:build --shape x:Nx3x32x32 --data photos:training --epochs 30 --gate "top1 >= 90" -o out/
      convkit export models:build --weights out/weights.safetensors --shape x:Nx3x32x32 -o float/
      convkit train models:build --shape x:Nx3x32x32 --data train.npz --elastic width,depth --epochs 40 -o family/
    """
    import torch

    from convkit.compress.training import augment as augmentations
    from convkit.compress.training.supervised import Schedule, usual_loss
    from convkit.runtimes.bench import gate

    place.check(output)
    parsed = tuple(gate.parse(text) for text in gates)
    _check(model, validation, metric, parsed)
    batch, most = _batches(model, batch)
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    learns, judged = _loaded(model, data, validation)
    if learns.labels is None:
        raise ConvkitError(f"{data.path} has no labels to learn from", hint="give them as `labels`, or --labels")
    names = augmentations.parse(augment)
    if elastic is not None:
        from convkit.cli import elastic_training
        from convkit.compress.training import delayed, family

        elastic_training.refuse(loss, metric, gates)
        how = delayed.Schedule(epochs, batch, rate or _ELASTIC_RATE, delay=delay, warm=warm, shards=shards, seed=seed)
        asked = family.Asked(family.parse(elastic))
        training = elastic_training.Training(model, learns, judged, how, asked, names, output, resume)
        elastic_training.tell(elastic_training.run(training), output, as_json=as_json)
        return
    if resume:
        raise ConvkitError("--resume belongs to --elastic", hint="leave it out, or add --elastic")
    loss = loss or usual_loss(learns.labels)
    module, metric = _built(model), metric or (parsed[0].quantity if parsed else None)
    if judged is not None:
        _scored(module, judged, metric, most)  # what cannot be scored is told before an hour of training
    if names and next(iter(learns.arrays.values())).ndim != 4:  # noqa: PLR2004 - [N, C, H, W]
        raise ConvkitError("--augment is for images [N, C, H, W]", hint="leave it out")
    changed = augmentations.chained(names) if names else None
    trained = _trained(module, learns, Schedule(epochs, batch, rate or _RATE, seed=seed), loss, changed)
    score = {} if judged is None else _scored(module, judged, metric, most)
    with record.output_folder(output) as folder:
        _write(folder, module)
        digests = {"data": learns.digest, **({"validation": judged.digest} if judged else {})}
        manifest = record.manifest(command=options.command_line(), digests=digests, seed=seed, threads=threads)
        report = _report(trained, loss, score, parsed)
        record.write_json(folder / record.MANIFEST, manifest)
        record.write_json(folder / "report.json", report)
    _show(report, output, as_json=as_json)
    missed = [one["gate"] for one in report["gates"] if not one["holds"]]
    if missed:
        raise VerdictError(f"the trained network misses {missed[0]!r}", hint="train longer, or with another --rate")


PART = train


@dataclass(frozen=True, slots=True)
class _Trained:
    parameters: int
    losses: Sequence[float]
    seconds: float


def _check(model: ModelRef, validation: DataRef | None, metric: str | None, gates: Sequence[Gate]) -> None:
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


def _batches(model: ModelRef, asked: int | None) -> tuple[int, int]:
    """Samples of a step, and of what is scored at a time: no more than inputs of a fixed batch hold."""
    fixed = {name: own.shape[0] for name, own in model.shapes.items() if own.shape and isinstance(own.shape[0], int)}
    name, most = min(fixed.items(), key=lambda one: one[1], default=("", _BATCH))
    if fixed and asked is not None and asked > most:
        raise ConvkitError(f"{name} takes {most} samples at a time, not --batch {asked}", hint="give N in its place")
    return asked or most, most


def _loaded(model: ModelRef, data: DataRef, validation: DataRef | None) -> tuple[Data, Data | None]:
    from convkit.compress import data as data_sets
    from convkit.compress.model import TensorSpec

    specs = tuple(TensorSpec(name, own.shape, own.dtype or "float32", own.sample) for name, own in model.shapes.items())
    return data_sets.load(data, specs), None if validation is None else data_sets.load(validation, specs)


def _built(model: ModelRef) -> nn.Module:
    from convkit.compress.sources import _aten_trace, factory

    module = factory.build(model)
    _aten_trace.inputs(module, model.shapes, model.path)
    return module


def _trained(module: nn.Module, data: Data, schedule: Schedule, loss: str, augment: Augment | None) -> _Trained:
    from convkit.compress.training.supervised import train as learn

    start = time.monotonic()
    count = sum(parameter.numel() for parameter in module.parameters())
    with show.progress("train") as say:
        say.found(f"{count:,} parameters, {len(data):,} samples, {loss}")
        losses = learn(module, data, schedule, loss, lambda epoch, x: say(f"epoch {epoch}: loss {x:.4f}"), augment)
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
