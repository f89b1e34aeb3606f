"""Quantize a trained network for a target, measured against the original on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from convkit.cli import carrying, options, search_options, values
from convkit.cli import output as place
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from convkit.cli.quantizing import Job
    from convkit.cli.search_options import Settings
    from convkit.cli.searchspace import Wishes
    from convkit.compress.data import DataRef
    from convkit.compress.model import ModelRef


@click.command
@options.model
@options.data(required=True, what="Calibration samples")
@options.usual_target
@options.output
@click.option(
    "--precision",
    type=values.WORD,
    metavar="NAME",
    help="All layers in these formats: int4, or of weights and activations, int4/uint8.  [default: the target's]",
)
@click.option(
    "--method",
    "methods",
    type=values.WORD,
    multiple=True,
    metavar="NAME",
    help="Quantize with this method in place of the usual remedies: learned_round, block_round, bias_correction …; "
    "`convkit list methods`.",
)
@search_options.formats()
@search_options.forms
@click.option(
    "--sensitivity",
    type=values.WORD,
    metavar="FILE|FOLDER",
    help="Search with what `convkit sensitivity` found of the same: it is not computed anew.",
)
@search_options.settings
def quantize(
    *,
    model: ModelRef,
    data: DataRef,
    target: str | None,
    output: str,
    precision: str | None,
    methods: tuple[str, ...],
    formats: str | None,
    forms: str | None,
    sensitivity: str | None,
    settings: Settings,
) -> None:
    """Quantize a trained network for a target, measured against the original on it.

    A quarter of the samples is held back: every result is checked on them, the next remedy tried where it is not as
    good, and the original returned where none is surely faster. OUTPUT gets model.onnx, plan.yaml, manifest.json
    and report.json.

    The original and what is made of it run with the knobs of the engine that are fastest for each (--no-tune leaves all
    at their defaults); plan.yaml names those of the network kept.

    With --formats or a budget (--latency, --size, --bops) the format of each layer is searched, by accuracy and by
    latency measured on the target: the most accurate network within the budgets, else the fastest that is as good.
    Accurate means near the network in float, or right by the labels (--by-labels). A budget out of reach is exit 1,
    with the nearest network and the nearest budget. `convkit choose` solves other budgets from the tables.json that it
    leaves, in seconds.

    `convkit sensitivity` does the part of the search that needs no target beforehand, on any machine; --sensitivity
    goes on from there, to the same result.

    What was killed, even by kill -9, goes on with --resume.

    \b
    Examples:
      convkit quantize net.onnx --data calib.npz --target onnxruntime-cpu -o out/
      convkit quantize net.onnx --data photos/ --target openvino-cpu --max-drop 1 -o out/
      convkit quantize net.onnx --data calib.npz --precision int4 --method block_round -o out/
      convkit quantize net.onnx --data calib.npz --formats int8,int4 --size "<=0.2x" -o out/
      convkit quantize net.onnx --data calib.npz --formats int8 --latency "<=4ms" -o out/
      convkit quantize net.onnx --data labelled.npz --formats int8,int4 --size "<=0.2x" --by-labels -o out/
      convkit quantize net.onnx --data calib.npz --tables out/tables.json --latency "<=3ms" -o out3/
      convkit quantize net.onnx --data calib.npz --formats int8,int4 --sensitivity sens/ -o out/
      convkit quantize models:resnet18 --weights r18.safetensors --shape x:Nx3x224x224 --data calib.npz -o out/
    """
    from convkit.cli import wishing

    if sensitivity is not None and settings.tables is not None:
        raise ConvkitError("--tables has the sensitivity of layers already", hint="leave out --sensitivity")
    place.check(output, settings.plan, dry_run=settings.dry_run)
    job = carrying.job(model, data, target, settings)
    job, note = _with_wishes(job, precision, methods)
    asked = job, formats, settings.tables, settings.budgets
    wishes = wishing.wishes(*asked, by_labels=settings.by_labels, forms=forms)
    known = _known(job, wishes, sensitivity)
    carrying.carry_out(job, wishes, output, settings, note, known)


PART = quantize


def _known(job: Job, wishes: Wishes | None, sensitivity: str | None) -> Mapping[str, Any]:
    """What the search begins with."""
    from convkit.cli import handover

    if sensitivity is None:
        return {}
    if wishes is None:
        raise ConvkitError("--sensitivity is of a search", hint="give --formats or a budget")
    return handover.read(sensitivity, job, wishes)


def _with_wishes(job: Job, precision: str | None, methods: tuple[str, ...]) -> tuple[Job, str]:
    """`job` with the formats and methods that are asked for, checked, and what there is to say of the formats."""
    from dataclasses import replace

    from convkit.compress.search import remedies, space

    if job.plan is not None and (precision or methods):
        raise ConvkitError("--plan says formats and methods already", hint="leave out --precision and --method")
    remedies.with_methods(methods)
    option, note = (None, "") if precision is None else space.precision(precision, job.target)
    return replace(job, methods=methods, precision=option), note
