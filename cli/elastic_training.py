"""What `convkit train --elastic` does: one training of a network and of all its members, kept epoch by epoch."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.cli import output as place
from convkit.cli import show
from convkit.cli.batches import indices_in_range
from convkit.compress import record
from convkit.compress.errors import ConvkitError
from convkit.compress.training import augment, family
from convkit.compress.training import crew as crews
from convkit.compress.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from convkit.cli.progress import Progress
    from convkit.compress.data import Data
    from convkit.compress.model import Model, ModelRef
    from convkit.compress.training.crew import Crew
    from convkit.compress.training.delayed import Schedule
    from convkit.compress.training.elastic import Elastic, Member

SCHEMA_VERSION = 1
_RANKED, _CALIBRATED, _BATCH = 64, 1024, 128
"""Samples that channels are ranked on and norms recalibrated on, and how many at a time."""


@dataclass(frozen=True, slots=True)
class Training:
    """What is trained on what, how, and where it goes."""

    model: ModelRef
    learns: Data
    judged: Data | None
    schedule: Schedule
    asked: family.Asked
    augment: tuple[str, ...]
    threads: int
    output: str
    resume: bool


def run(training: Training) -> dict[str, Any] | None:
    """Train, and write the family into the output; its report. None on a process that is not the first."""
    with crews.crew() as crew:
        return _run(training, crew)


def refuse(loss: str | None, metric: str | None, gates: Sequence[str]) -> None:
    """Raise ConvkitError for what elastic networks are not trained by."""
    if loss not in (None, "cross_entropy") or metric not in (None, "top1") or gates:
        raise ConvkitError(
            "elastic networks learn classes and are scored by top1", hint="leave out --loss, --metric, --gate"
        )


def tell(report: Mapping[str, Any] | None, output: str, *, as_json: bool) -> None:
    """Show the report; nothing on processes but the first."""
    if report is None:
        return
    if as_json:
        show.json(report)
        return
    scores = ", ".join(f"{name} {value:.2f} %" for name, value in report["scores"].items())
    show.text(f"{output}: trained in {report['seconds']:.0f} s{': top-1 ' if scores else ''}{scores}")


def _run(training: Training, crew: Crew) -> dict[str, Any] | None:
    network, model = _written(training.model)
    elastic = family.made(model, training.asked)
    arrays, labels = tensors(model, training.learns)
    if training.judged is not None:
        tensors(model, training.judged)  # what cannot be scored is told before an hour of training
    augment.check(training.augment, [len(spec.shape) for spec in model.inputs], labels.ndim)
    asked = [training.schedule, training.asked, training.augment]
    key = [training.model, model.digest, training.learns.digest, *asked]
    kept = Checkpoint(training.output, key, resume=training.resume)
    started = time.monotonic()
    with show.progress("train") as say, indices_in_range(model):
        order, losses, taken = _trained(training, model, elastic, (arrays, labels), kept, crew, say)
    if crew.rank:
        return None
    scores = _scored(elastic, model, arrays, training.judged)
    _settle(elastic, arrays)
    report = {
        "schema_version": SCHEMA_VERSION,
        "losses": losses,
        "products": taken,
        "seconds": time.monotonic() - started,
        "schedule": asdict(training.schedule),
        "scores": scores,
    }
    with record.output_folder(training.output) as folder:
        told = {"order": order or {}, "scores": scores, "products": taken}
        family.write(folder, network, elastic, training.asked, told)
        digests = {"data": training.learns.digest, "model": model.digest}
        place.describe(folder, report, digests=digests, seed=training.schedule.seed, threads=training.threads)
    kept.done()
    return report


def _written(ref: ModelRef) -> tuple[bytes, Model]:
    """The network as an ONNX file, which a family keeps so that no code is needed to read it, and read from that."""
    from convkit.compress import model as models
    from convkit.export import artifact
    from convkit.export.onnx import to_onnx

    written = artifact.serialized(to_onnx(models.load(ref)))
    with tempfile.TemporaryDirectory(prefix="convkit-") as folder:
        path = Path(folder) / family.NETWORK
        path.write_bytes(written)
        return written, models.with_shapes(models.load(models.ModelRef(str(path))))


def _trained(
    training: Training,
    model: Model,
    elastic: Elastic,
    data: tuple[tuple[Tensor, ...], Tensor],
    kept: Checkpoint,
    crew: Crew,
    say: Progress,
) -> tuple[Mapping[str, Sequence[int]] | None, list[float], float]:
    """The order of channels, the loss of each epoch, and multiply-accumulates that training took."""
    from convkit.compress.training import delayed, loop
    from convkit.compress.training.samples import taken

    (arrays, labels), schedule = data, training.schedule
    known = kept.load()
    order: list[Mapping[str, Sequence[int]] | None] = [None if known is None else known[1]["order"]]
    if order[0]:
        family.reorder(elastic, order[0])
    count = sum(parameter.numel() for parameter in elastic.parameters())
    say.found(f"{count:,} parameters, {len(labels):,} samples, {_said(elastic)}")
    names = [spec.name for spec in model.inputs]

    def begin() -> None:
        _settle(elastic, arrays)
        rows = spread(len(labels), _RANKED).tolist()
        few = [dict(zip(names, taken(arrays, slice(at, at + 1)), strict=True)) for at in rows]
        order[0] = family.rank(elastic, model, few)
        say.found("members begin; channels are ranked")

    chosen = augment.chained(training.augment) if training.augment else None
    found = delayed.train(
        elastic, arrays, labels, schedule, kept=known, augment=chosen, crew=crew, begin=None if order[0] else begin
    )
    state, products = loop.State(), 0.0
    for learner, state in found:
        products = learner.updates.products
        say(f"epoch {state.epoch} of {schedule.epochs}: loss {state.losses[-1]:.4f}")
        if not crew.rank:
            packed, told = loop.packed(learner, state)
            kept.keep(state.epoch, packed, told | {"order": order[0]})
    return order[0], state.losses, products


def _said(elastic: Elastic) -> str:
    space = elastic.space
    blocks = sum(len(stage) - 1 for stage in space.stages)
    parts = {"widths": len(space.widths), "blocks": blocks, "kernels": len(space.kernels)}
    return "elastic in " + ", ".join(f"{count} {name}" for name, count in parts.items() if count)


def tensors(model: Model, data: Data) -> tuple[tuple[Tensor, ...], Tensor]:
    """The inputs in the network's order, and classes. Raises ConvkitError for labels that are no classes."""
    import torch

    if data.labels is None:
        raise ConvkitError("an elastic network is trained by labels", hint="give them as `labels`, or --labels")
    if data.labels.ndim != 1 or data.labels.dtype.kind not in "iu":
        raise ConvkitError("members learn classes from the whole network", hint="give labels that are class numbers")
    classes = model.outputs[0].shape[-1]
    if isinstance(classes, int) and int(data.labels.max()) >= classes:
        raise ConvkitError(f"there is a label {int(data.labels.max())}, the network tells {classes} classes apart")
    arrays = tuple(torch.from_numpy(data.arrays[spec.name]) for spec in model.inputs)
    return arrays, torch.from_numpy(data.labels).long()


def _scored(elastic: Elastic, model: Model, arrays: tuple[Tensor, ...], judged: Data | None) -> dict[str, float]:
    """Top-1 in percent of the whole network and of the least, each with norms of its own."""
    if judged is None:
        return {}
    found = {}
    for name, choice in (("whole", elastic.space.whole), ("least", elastic.space.least)):
        member = elastic.member(choice)
        member.recalibrate(batches(arrays))
        found[name] = top1(member, model, judged)
    return found


def _settle(elastic: Elastic, arrays: tuple[Tensor, ...]) -> None:
    """Put the statistics of the whole network's norms where the network itself has them."""
    whole = elastic.member(elastic.space.whole)
    whole.recalibrate(batches(arrays))
    held = dict(elastic.graph.named_buffers())
    for name, tensor in whole.shape.named_buffers():
        held[name].copy_(tensor)


def batches(arrays: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    """Samples, a batch at a time, as norms are recalibrated on."""
    from convkit.compress.training.samples import length, taken

    rows = spread(length(arrays), _CALIBRATED)
    parts = max(1, len(rows) // _BATCH)
    return [taken(arrays, rows[at::parts]) for at in range(parts)]


def spread(count: int, most: int) -> Tensor:
    """Of `count` rows `most` that lie evenly among them: neighbours are often of one class."""
    import torch

    kept = min(most, count)
    return torch.arange(kept) * count // kept


def top1(member: Member, model: Model, judged: Data) -> float:
    """Percent of the samples that `member`, as its norms are now, classifies as labelled."""
    import torch

    from convkit.compress import metric
    from convkit.compress.training.samples import length, taken

    arrays, _ = tensors(model, judged)
    member.shape.eval()
    with torch.inference_mode():
        starts = range(0, length(arrays), _BATCH)
        made = [member(*taken(arrays, slice(at, at + _BATCH)))[0] for at in starts]
    member.shape.train()
    return metric.evaluate("top1", {model.outputs[0].name: torch.cat(made).numpy()}, None, judged.labels)
