"""Train what is left of a network, shrunk or factorized, to make what the whole one makes; no labels are needed."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from convkit.cli import batches, options, show, values
from convkit.cli import output as place
from convkit.compress import record
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from convkit.compress.data import DataRef
    from convkit.compress.model import Model, ModelRef
    from convkit.compress.training.checkpoint import Checkpoint
    from convkit.compress.training.distilled import Distilled
    from convkit.compress.training.loop import Schedule

SCHEMA_VERSION = 1
_HELD = 0.1
"""Of the samples, to tell which epoch's weights are the best."""


@click.command
@options.model
@click.option("--teacher", required=True, metavar="PATH", help="The network that it was made of: an ONNX or .pt2 file.")
@options.data(required=True, what="What it learns from; a tenth is held back")
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True, help="Passes over the data.")
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True, help="Samples of one step.")
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    callback=values.finite,
    default=5e-4,
    show_default=True,
    help="Largest learning rate.",
)
@click.option("--augment", metavar="NAME,...", help="For images: flip, shift.")
@click.option(
    "--norms/--no-norms",
    default=False,
    show_default=True,
    help="Normalize behind convolutions meanwhile, to learn faster where much is lost; folded at the end.",
)
@options.threads
@options.seed
@options.output
@options.json
@options.resume
def distill(
    *,
    model: ModelRef,
    teacher: str,
    data: DataRef,
    epochs: int,
    batch: int,
    rate: float,
    augment: str | None,
    norms: bool,
    threads: int,
    seed: int,
    output: str,
    as_json: bool,
    resume: bool,
) -> None:
    """Train a smaller network to make what the one makes that it was made of.

    What `convkit shrink` and `convkit factorize` leave is fitted without training; where there are more samples of the
    kind that the network will meet, this brings it nearer to the original. Labels are not needed. The network stays as
    it is where training brings it no nearer on the samples held back. Quantize what comes out, not what goes in. What
    was killed goes on with --resume.

    \b
    Examples:
      convkit distill out/narrow/model.onnx --teacher net.onnx --data train.npz -o out/tuned
      convkit distill out/narrow/model.onnx --teacher net.onnx --data photos/ --augment flip,shift --norms -o out/
    """
    import torch

    from convkit.compress import data as data_sets
    from convkit.compress import model as models
    from convkit.compress.training import augment as augmentations
    from convkit.compress.training import crew
    from convkit.compress.training.checkpoint import Checkpoint
    from convkit.compress.training.distilled import check
    from convkit.compress.training.loop import Schedule

    crew.check_alone("distill")
    place.check(output)
    names = augmentations.parse(augment)
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    student, master = models.load(model), models.load(models.ModelRef(teacher))
    check(student, master)
    _check_batch((student, master), batch, names, norms=norms)
    learns, held = data_sets.load(data, student.inputs).split(_HELD, seed)
    if any(network.batch is not None for network in (student, master)):
        learns, held = learns.whole(batch), held.whole(batch)
    started = time.monotonic()
    how, digests = Schedule(epochs, batch, rate, seed=seed), {"model": student.digest, "teacher": master.digest}
    kept = Checkpoint(output, [digests, learns.digest, how, names, norms], resume=resume)
    with batches.indices_in_range(student):
        found = _distilled((student, master), (learns, held), how, names, norms=norms, kept=kept)
    report = {"schema_version": SCHEMA_VERSION, **asdict(found), "seconds": time.monotonic() - started}
    _write(student, report, output, digests={"data": learns.digest, **digests}, seed=seed, threads=threads)
    kept.done()
    _show(report, output, as_json=as_json)


PART = distill


def _check_batch(networks: Sequence[Model], batch: int, names: tuple[str, ...], *, norms: bool) -> None:
    from convkit.compress.training import augment as augmentations

    student = networks[0]
    for network in networks:
        batches.check(network, batch, "--batch")
    augmentations.check(names, [len(spec.shape) for spec in student.inputs])
    if norms and batch == 1:
        raise ConvkitError("--norms takes more than one sample at a time", hint="leave it out")


def _distilled(
    networks: tuple[Model, Model],
    data: tuple[Any, Any],
    schedule: Schedule,
    names: tuple[str, ...],
    *,
    norms: bool,
    kept: Checkpoint,
) -> Distilled:
    from convkit.compress.training import augment
    from convkit.compress.training.distilled import distill as learn

    with show.progress("distill") as say:
        say.found(f"{len(data[0]):,} samples, {len(data[1]):,} held back")

        def told(epoch: int, loss: float, held: float) -> None:
            say(f"epoch {epoch} of {schedule.epochs}: {loss:.5f}, held back {held:.5f}")

        chosen = augment.chained(names) if names else None
        return learn(*networks, data, schedule, augment=chosen, norms=norms, kept=kept, say=told)


def _write(student: Model, report: Mapping[str, Any], output: str, **made_from: Any) -> None:  # noqa: ANN401
    from convkit.export import artifact
    from convkit.export.onnx import to_onnx

    written = artifact.serialized(to_onnx(student))
    with record.output_folder(output) as folder:
        record.write_bytes(folder / record.MODEL, written)
        place.describe(folder, report, **made_from)


def _show(report: Mapping[str, Any], output: str, *, as_json: bool) -> None:
    if as_json:
        show.json(report)
        return
    before, after = report["before"], report["after"]
    show.text(
        f"{output}/{record.MODEL}: {after:.5f} of the teacher's variance off on what was held back, {before:.5f} before"
    )
