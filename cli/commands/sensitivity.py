"""Say what each layer of a network loses in each format, on any machine, before a search on the target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from convkit.cli import carrying, options, search_options, show
from convkit.cli import output as place

if TYPE_CHECKING:
    from convkit.cli.quantizing import Job
    from convkit.cli.search_options import Settings
    from convkit.cli.searchspace import Ground, Wishes
    from convkit.cli.sensing import Sensed
    from convkit.compress.data import DataRef
    from convkit.compress.model import ModelRef
    from convkit.compress.search.criterion import Criterion

SCHEMA_VERSION = 1


@click.command
@options.model
@options.data(required=True, what="Calibration samples")
@options.usual_target
@options.output
@search_options.formats(required=True)
@search_options.forms
@search_options.unmeasured
def sensitivity(
    *,
    model: ModelRef,
    data: DataRef,
    target: str | None,
    output: str,
    formats: str,
    forms: str | None,
    settings: Settings,
) -> None:
    """Say what each layer of a network loses in each format, on any machine, before a search on the target.

    It is the part of `convkit quantize --formats` that measures nothing on the target: which remedies help the network,
    and the loss of every layer alone in every format, from a few backward passes. `convkit quantize --sensitivity
    OUTPUT`, with the same network, data and options, goes on from there to the result that it has without; on a Ray
    cluster the one is done on any machine, the other on the target. OUTPUT gets sensitivity.json, manifest.json and
    report.json.

    \b
    Examples:
      convkit sensitivity net.onnx --data calib.npz --target openvino-cpu --formats int8,int4 -o sens/
      convkit quantize net.onnx --data calib.npz --target openvino-cpu --formats int8,int4 --sensitivity sens/ -o out/
      convkit sensitivity net.onnx --data labelled.npz --formats int8,int4 --by-labels --json -o sens/
    """
    from convkit.cli import checkpoint, handover, searching, wishing

    place.check(output)
    job = carrying.job(model, data, target, settings, measured=False)
    wishes = wishing.wishes(job, formats, None, {}, by_labels=settings.by_labels, forms=forms)
    assert wishes is not None  # noqa: S101 - there are formats
    if words := carrying.kept_in_float(job):
        show.note(words)
    kept = checkpoint.beside(output, [handover.key(job, wishes), settings.threads], resume=settings.resume)
    with show.progress(f"sensitivity of {job.model.name} for {job.target.name}") as say:
        ground, found = searching.sensed(job, wishes, say, kept)
    report = _report(job, wishes, ground, found)
    _write(output, job, wishes, handover.values(kept, found), report)
    kept.done()
    if settings.as_json:
        show.json(report)
    else:
        _show(report, job.model.name, wishes.criterion)


PART = sensitivity


def _report(job: Job, wishes: Wishes, ground: Ground, found: Sequence[Sensed]) -> dict[str, Any]:
    """JSON of the losses, layers in the network's order; an option costs the same whatever else runs in float."""
    from convkit.compress import graph as graphs

    losses: dict[str, dict[str, float]] = {}
    for name, known in ((name, known) for one in found for name, known in one.losses.items()):
        losses.setdefault(name, {}).update({str(option): loss for option, loss in known.items()})
    operators = {graphs.key(node): graphs.operator(node) for node in graphs.computes(ground.builder.model.graph)}
    return {
        "schema_version": SCHEMA_VERSION,
        "target": job.target.name,
        "criterion": wishes.criterion.name,
        "layers": [
            {"name": name, "operator": operator, "loss": losses[name]}
            for name, operator in operators.items()
            if name in losses
        ],
    }


def _write(output: str, job: Job, wishes: Wishes, values: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    """The output folder, whole or not at all."""
    from convkit.cli import handover
    from convkit.compress import record

    digests = {"model": job.model.digest, "data": job.data.digest}
    digests |= {} if job.plan is None else {"plan": job.plan.digest}
    facts: dict[str, Any] = {"target": job.target.name, "seed": job.seed}
    with record.output_folder(output) as folder:
        handover.write(folder, job, wishes, values)
        place.describe(folder, report, digests=digests, **facts)


def _show(report: Mapping[str, Any], network: str, criterion: Criterion) -> None:
    """The layers that may lose most first; one that may have other forms has a row for each."""
    from convkit.compress.option import Option

    columns: dict[str, None] = {}
    rows: list[tuple[float, str, str, dict[str, str]]] = []
    for layer in report["layers"]:
        most = max(layer["loss"].values(), default=-math.inf)
        forms: dict[str, dict[str, str]] = {}
        for text, loss in layer["loss"].items():
            option = Option.parse(text)
            forms.setdefault(option.form, {})[str(option.plain)] = f"{loss:.3g}"
        columns |= dict.fromkeys(name for cells in forms.values() for name in cells)
        called = {form: f"{layer['name']} as {form}" if form else layer["name"] for form in forms}
        rows += [(most, called[form], layer["operator"], cells) for form, cells in forms.items()]
    rows.sort(key=lambda row: -row[0])
    table = [(name, operator, *(cells.get(column, "") for column in columns)) for _, name, operator, cells in rows]
    show.table(("layer", "operator", *columns), table, title=f"{network}: {criterion.alone}")
