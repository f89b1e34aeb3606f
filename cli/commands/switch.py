"""Make the file of one width from a network that runs at many."""

from __future__ import annotations

import click

from convkit.cli import options, show, values
from convkit.cli import output as place
from convkit.compress import record

FILE = "model.onnx"


@click.command
@click.argument("model", type=values.WORD, metavar="MODEL")
@click.option(
    "--bits",
    type=click.IntRange(2, 8),
    required=True,
    help="The width: that of weights, and of activations where the target has such.",
)
@options.output
@options.json
def switch(*, model: str, bits: int, output: str, as_json: bool) -> None:
    """Make the file of one width from a network that runs at many.

    MODEL is what `convkit train --switch` wrote: a network of its largest width, which its target's engine runs as it
    is. The others are made of it without data and without training: weights are shifted, the rest stands in the file.

    \b
    Examples:
      convkit train net.onnx --data train.npz --switch 8,6,4,2 -o any/
      convkit switch any/model.onnx --bits 4 -o four/
      convkit bench any/model.onnx four/model.onnx --engine onnxruntime --data val.npz
    """
    from convkit.compress.sources import onnx as source
    from convkit.export import switched

    place.check(output)
    file, _ = source.whole(model)
    made = switched.narrowed(file, bits)
    written = bytes(made.SerializeToString(deterministic=True))
    with record.output_folder(output) as folder:
        record.write_bytes(folder / FILE, written)
        digests = {"model": record.digest_file(model)}
        record.write_json(folder / record.MANIFEST, record.manifest(command=options.command_line(), digests=digests))
    if as_json:
        show.json({"bits": bits, "widths": list(switched.widths(file)), "bytes": len(written)})
    else:
        show.text(f"{output}/{FILE}: {bits} bits, of {', '.join(map(str, switched.widths(file)))}")


PART = switch
