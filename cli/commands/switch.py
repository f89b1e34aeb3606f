"""Make the file of one width, or of widths that differ from layer to layer, from a network that runs at many."""

from __future__ import annotations

from collections import Counter

import click

from convkit.cli import options, show, values
from convkit.cli import output as place
from convkit.compress import budget, record
from convkit.compress.errors import ConvkitError


@click.command
@click.argument("model", type=values.WORD, metavar="MODEL")
@click.option(
    "--bits",
    type=click.IntRange(2, 8),
    help="The width: that of weights, and of activations where the target has such.",
)
@click.option(
    "--bops",
    metavar="BUDGET",
    help='Widths that differ from layer to layer, within "<=20G" bit operations or "<=0.04x"; of what was trained '
    "with --mixed.",
)
@options.output
@options.json
def switch(*, model: str, bits: int | None, bops: str | None, output: str, as_json: bool) -> None:
    """Make the file of one width from a network that runs at many, or of widths that differ from layer to layer.

    MODEL is what `convkit train --switch` wrote: a network of its largest width, which its target's engine runs as it
    is. The others are made of it without data and without training: weights are shifted, the rest stands in the file.
    OUTPUT gets model.onnx, manifest.json and report.json, which has the width of each layer.

    \b
    Examples:
      convkit train net.onnx --data train.npz --switch 8,6,4,2 -o any/
      convkit switch any/model.onnx --bits 4 -o four/
      convkit switch any/model.onnx --bops "<=0.03x" -o mixed/
      convkit bench any/model.onnx four/model.onnx --engine onnxruntime --data val.npz
    """
    from convkit.compress.sources import onnx as source
    from convkit.export import artifact, mixed, switched

    if (bits is None) == (bops is None):
        raise ConvkitError("a width or a budget says what to make", hint="give --bits or --bops")
    wish = None if bops is None else budget.parse("bops", bops)
    place.check(output)
    file, _ = source.whole(model)
    layers: dict[str, int] = {}
    if bits is not None:
        made, said = switched.narrowed(file, bits), f"{bits} bits"
    elif wish is not None:
        layers = mixed.chosen(mixed.decisions(file), wish)
        made = mixed.composed(file, layers)
        counts = sorted(Counter(layers.values()).items(), reverse=True)
        said = ", ".join(f"{count} layers of {width} bits" for width, count in counts)
    written, widths = artifact.serialized(made), switched.widths(file)
    report = {"schema_version": 1, "bits": bits, "bops": bops, "layers": layers, "widths": list(widths)}
    report["bytes"] = len(written)
    with record.output_folder(output) as folder:
        record.write_bytes(folder / record.MODEL, written)
        place.describe(folder, report, digests={"model": record.digest_file(model)})
    if as_json:
        show.json(report)
    else:
        show.text(f"{output}/{record.MODEL}: {said}, of {', '.join(map(str, widths))}")


PART = switch
