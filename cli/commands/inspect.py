"""Show what each layer of a network holds, computes and moves.

Shapes are those of the sample input; `--shape` sets them. MACs and bytes are exact for those shapes.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from convkit.cli import options, show
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convkit.compress.analysis import Analysis, LayerAnalysis
    from convkit.compress.model import Model, ModelRef

MEASURES = ("parameters", "macs", "activations", "bytes", "intensity")
_COLUMNS = ("parameters", "MACs (M)", "activations", "KiB moved", "op/byte")


@click.command
@options.model
@click.option("--sort", type=click.Choice(MEASURES), help="The layers with the most of it first, not in order.")
@click.option("--top", type=click.IntRange(1), metavar="N", help="Only N layers; sorted by MACs unless --sort says.")
@click.option("--filters", is_flag=True, help="What the filters of convolutions look like: idle, alike, untrained.")
@options.json
def inspect(model: ModelRef, sort: str | None, top: int | None, filters: bool, as_json: bool) -> None:
    """Show what each layer of a network holds, computes and moves.

    \b
    Examples:
      convkit inspect net.onnx
      convkit inspect net.onnx --shape x:1x3x320x320 --top 10
      convkit inspect models.unet:UNet --weights unet.safetensors --shape x:Nx3x256x256 --sort bytes
      convkit inspect net.onnx --filters
    """
    from convkit.compress import analysis
    from convkit.compress import model as models

    if filters:
        if sort is not None or top is not None:
            raise ConvkitError("--filters shows all convolutions, in order", hint="leave out --sort and --top")
        _show_filters(models.load(model), as_json=as_json)
        return
    found = analysis.analyse(models.load(model))
    layers = _chosen(found, sort or ("macs" if top else None), top)
    if as_json:
        show.json(found.as_dict(layers))
    else:
        _show(found, layers)


PART = inspect


def _show_filters(model: Model, *, as_json: bool) -> None:
    from convkit.compress import filters

    found = filters.filters(model.graph)
    if as_json:
        layers = [{**dataclasses.asdict(one), "hint": one.hint} for one in found]
        show.json({"schema_version": 1, "model": model.digest, "name": model.name, "layers": layers})
        return
    rows = [
        (one.name, one.count, one.taps, f"{one.sparse:.1%}", f"{one.entropy:.2f}", f"{one.random:.2f}",
         f"{one.orthogonal:.2f}", one.hint)
        for one in found
    ]  # fmt: skip
    columns = ("convolution", "filters", "taps", "idle", "entropy", "of noise", "orthogonal", "")
    show.table(columns, rows, title=model.name)


def _chosen(found: Analysis, sort: str | None, top: int | None) -> Sequence[LayerAnalysis]:
    layers = list(found.layers)
    if sort is not None:
        layers.sort(key=lambda layer: -getattr(layer, sort))
    return layers[:top]


def _show(found: Analysis, layers: Sequence[LayerAnalysis]) -> None:
    rows = [
        (layer.name, layer.kind, _shapes(layer.inputs), _shape(layer.output), *_measures(layer)) for layer in layers
    ]
    show.table(("layer", "kind", "input", "output", *_COLUMNS), rows, title=found.name)
    kinds = [(kind, *_totals(total)) for kind, total in found.kinds().items()]
    show.table(("kind", "layers", *_COLUMNS), kinds, totals=("total", *_totals(found.total())))
    novel = [(*place.split(":", 1), *_totals(total)) for place, total in found.novel().items()]
    if novel:
        show.table(("novel convolution", "at", "layers", *_COLUMNS), novel)


def _measures(layer: LayerAnalysis) -> tuple[object, ...]:
    return _cells({name: getattr(layer, name) for name in MEASURES})


def _totals(total: dict[str, float]) -> tuple[object, ...]:
    return (total["layers"], *_cells(total))


def _cells(values: dict[str, float]) -> tuple[object, ...]:
    macs, kibibytes = f"{values['macs'] / 1e6:,.2f}", f"{values['bytes'] / 1024:,.1f}"
    return values["parameters"], macs, values["activations"], kibibytes, f"{values['intensity']:.1f}"


def _shapes(shapes: Sequence[Sequence[int]]) -> str:
    return ", ".join(map(_shape, shapes))


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
