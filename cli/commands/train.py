"""Train a network: from labels, with all its members, or quantized, with the rounding that it runs with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from convkit.cli import options, plain_training, quantized_options, quantized_training, values
from convkit.cli import output as place
from convkit.compress import function as functions
from convkit.compress.errors import ConvkitError
from convkit.compress.training.supervised import LOSSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convkit.compress.data import DataRef
    from convkit.compress.model import ModelRef

_RATE, _ELASTIC_RATE = 3e-3, 0.1
"""Of AdamW, and of the descent that elastic networks are trained by."""


@click.command
@options.model
@options.data(required=True, what="What it learns from, with labels where no network in float teaches")
@click.option("--validation", type=options.DataSet(), metavar="PATH", help="What it is scored on, with labels.")
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True, help="Passes over the data.")
@click.option(
    "--batch", type=click.IntRange(1), help=f"Samples of one step.  [default: {plain_training.BATCH}, or all it takes]"
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    callback=values.finite,
    help="Largest learning rate; in low precision that of weights of size 0.1, others move in proportion.  "
    f"[default: {_RATE}; of --elastic {_ELASTIC_RATE}; in low precision by the formats, 1e-5 for int8, 2e-4 for int4]",
)
@click.option(
    "--loss",
    type=values.WORD,
    metavar="NAME|MODULE:FUNCTION",
    help=f"What is made least: {', '.join(LOSSES)}, or your function of outputs and labels.  [default: by the labels]",
)
@quantized_options.settings
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
    help="Parts of a batch of --elastic or --precision, "
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
    formats: quantized_options.Asked,
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
    """Train a network: from labels, with all its members, or quantized, with the rounding that it runs with.

    From labels alone OUTPUT gets weights.safetensors, which every command takes as --weights.

    With --precision or --plan a trained network learns with the rounding that it runs with (quantization-aware
    training), from labels, from its own outputs in float, or both: OUTPUT gets the quantized model.onnx. It goes on
    with --resume where it was killed.

    With --switch it learns to run at several widths from one set of weights: OUTPUT gets a model.onnx of the largest
    width, of which `convkit switch` makes the others without data; with --mixed, of layers that differ in width, too.

    With --search the format of each layer is found while it is trained, once, by what the network is worth within the
    --bops or the --latency that are asked for: OUTPUT gets the quantized model.onnx, its plan.yaml, and where formats
    were decided step by step (FLIQS, and --by dnas) a picture of how. With --widths layers may have fewer
    channels, too.

    With --elastic it is trained with all its members, which have fewer channels, fewer residual blocks and smaller
    kernels, in one set of weights (DεpS): OUTPUT gets a family, of which `convkit shrink` makes networks for as many
    targets as there are. It goes on with --resume where it was killed, and runs on many processes under torchrun.

    \b
    Examples:
      convkit train models:build --shape x:Nx1x16x16 --data train.npz --validation val.npz -o out/
      convkit train models:build --shape x:Nx3x32x32 --data photos:training --epochs 30 --gate "top1 >= 90" -o out/
      convkit export models:build --weights out/weights.safetensors --shape x:Nx3x32x32 -o float/
      convkit train net.onnx --data photos/ --precision int4 --target openvino-cpu --rate 5e-4 -o int4/
      convkit train net.onnx --data train.npz --plan out/plan.yaml --teach 0.5 --epochs 5 -o tuned/
      convkit train net.onnx --data train.npz --switch 8,6,4,2 --epochs 20 -o any/
      convkit train net.onnx --data train.npz --search int8,int4,int2 --bops "<=0.03x" --epochs 20 -o mixed/
      convkit train net.onnx --data train.npz --search int8,int4 --widths 0.75,0.5 --bops "<=0.02x" -o small/
      convkit train models:build --shape x:Nx3x32x32 --data train.npz --elastic width,depth --epochs 40 -o family/
    """
    import torch

    from convkit.compress.training import augment as augmentations
    from convkit.compress.training import loop
    from convkit.runtimes.bench import gate

    place.check(output)
    _check_loss(loss)
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    names = augmentations.parse(augment)
    if formats.quantized:
        _refuse(elastic, metric, gates)
        how = loop.Schedule(epochs, batch or 0, rate or 0.0, decay=0.0, seed=seed)
        aware = quantized_training.Training(
            model, data, validation, formats, how, loss, names, shards, threads, output, resume=resume
        )
        quantized_training.tell(quantized_training.run(aware), output, as_json=as_json)
        return
    formats.refuse_beside_labels(shards=1 if elastic else shards)
    parsed = tuple(gate.parse(text) for text in gates)
    plain_training.check(model, validation, metric, parsed)
    batch, most = plain_training.batches(model, batch)
    learns, judged = plain_training.loaded(model, data, validation)
    if learns.labels is None:
        raise ConvkitError(f"{data.path} has no labels to learn from", hint="give them as `labels`, or --labels")
    if elastic is not None:
        from convkit.cli import elastic_training
        from convkit.compress.training import delayed, family

        elastic_training.refuse(loss, metric, gates)
        slowly = delayed.Schedule(
            epochs, batch, rate or _ELASTIC_RATE, delay=delay, warm=warm, shards=shards, seed=seed
        )
        if slowly.begin > epochs - 1 / max(1, len(learns) // batch):  # the last step
            raise ConvkitError("no member would ever be trained", hint="give a smaller --delay, or a longer --warm")
        kinds = family.Asked(family.parse(elastic))
        members = elastic_training.Training(model, learns, judged, slowly, kinds, names, threads, output, resume)
        elastic_training.tell(elastic_training.run(members), output, as_json=as_json)
        return
    plainly = loop.Schedule(epochs, batch, rate or _RATE, seed=seed)
    training = plain_training.Training(
        model, learns, judged, plainly, loss, names, metric, parsed, most, threads, output, resume=resume
    )  # fmt: skip
    plain_training.tell(plain_training.run(training), output, as_json=as_json)


PART = train


def _check_loss(loss: str | None) -> None:
    if loss is not None and loss not in LOSSES and not functions.names_one(loss):
        raise ConvkitError(f"there is no loss {loss!r}", hint=f"there is: {', '.join(LOSSES)}, or MODULE:FUNCTION")


def _refuse(elastic: str | None, metric: str | None, gates: Sequence[str]) -> None:
    """Raise ConvkitError for what quantized networks are not trained with."""
    wrong = [name for name, given in (("--elastic", elastic), ("--metric", metric), ("--gate", gates)) if given]
    if wrong:
        raise ConvkitError(
            f"{wrong[0]} is not for --precision, --plan, --switch, --search and their options",
            hint="leave it out; gate with `convkit bench`",
        )
