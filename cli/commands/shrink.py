"""Fewer channels: layers made narrower where that loses least for the time it saves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from convkit.cli import carrying, options, search_options, show, values
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from convkit.cli.search_options import Settings
    from convkit.compress.data import DataRef
    from convkit.compress.model import ModelRef


@click.command
@options.model
@options.data(required=True, what="Samples of the network's input")
@options.usual_target
@options.output
@click.option(
    "--step",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    metavar="CHANNELS",
    help="Widths are multiples of this where there are as many channels: kernels are made for such.",
)
@click.option(
    "--importance",
    type=values.Part("compress/importance"),
    default="taylor",
    show_default=True,
    metavar="NAME",
    help="Rank channels by this; `convkit list importance`.",
)
@click.option(
    "--formats", type=values.WORD, metavar="NAME,...", help="Search the format of each layer among these, too: int8."
)
@click.option(
    "--forms",
    type=values.WORD,
    metavar="NAME,...",
    help="Search the form of each convolution among these, too: tucker2; `convkit list forms`.",
)
@search_options.untabled
def shrink(
    *,
    model: ModelRef,
    data: DataRef,
    target: str | None,
    output: str,
    step: int,
    importance: str,
    formats: str | None,
    forms: str | None,
    settings: Settings,
) -> None:
    """Take channels out of a trained network, where that makes it faster and loses least.

    Channels that are added, multiplied or joined together go together; what each group is worth to the outputs comes
    from a few backward passes unless --importance says another way, what layers of other widths take from profiles of this machine. Layers that read less
    than before are fitted, without training, to make what they made. With --formats and --forms the same search decides
    about these as well, within the one budget. Nothing slower than the original is kept, but where --size or --bops
    asks for it. OUTPUT gets model.onnx,
    plan.yaml, manifest.json and report.json.

    Where MODEL is a family that `convkit train --elastic` left, the most accurate of its members within --latency is
    picked, for as many targets as there are from the one training; the data needs labels then.

    \b
    Examples:
      convkit shrink net.onnx --data calib.npz --target openvino-cpu -o out/
      convkit shrink net.onnx --data calib.npz --latency "<=0.6x" -o out/
      convkit shrink net.onnx --data calib.npz --formats int8 --latency "<=0.3x" -o out/
      convkit shrink family/ --data val.npz --latency "<=5ms" -o out/
      convkit shrink net.onnx --data calib.npz --forms tucker2 --step 16 --size "<=0.5x" -o out/
    """
    from convkit.cli import members, wishing
    from convkit.cli import output as place
    from convkit.compress import budget
    from convkit.compress.training import family

    place.check(output, settings.plan, dry_run=settings.dry_run)
    job = carrying.job(model, data, target, settings)
    if family.is_one(model.path):
        wanted = [budget.parse(name, text) for name, text in settings.budgets.items() if text is not None]
        if len(wanted) != 1 or formats or forms:
            hint = 'give one --latency, such as "<=5ms", and no --formats or --forms: quantize the member afterwards'
            raise ConvkitError("a member of a family is picked by one limit on its time", hint=hint)
        source = click.get_current_context().get_parameter_source
        defaults = ("max_drop", "min_sqnr", "step", "importance")
        given = [name for name in ("plan", "keep", "by_labels", "resume") if getattr(settings, name)]
        given += [name for name in defaults if source(name) is ParameterSource.COMMANDLINE]
        if given:
            option = f"--{given[0].replace('_', '-')}"
            raise ConvkitError(f"{option} is for one network, not for a family", hint="leave it out")
        if settings.dry_run:
            show.text(f"would pick the member of {model.path} that is best within {wanted[0].text}, and write {output}")
            return
        members.shrink(job, family.read(model.path), wanted[0], output, as_json=settings.as_json)
        return
    asked = job, formats or "", None, settings.budgets
    wishes = wishing.wishes(*asked, by_labels=settings.by_labels, forms=forms, narrow=step, importance=importance)
    carrying.carry_out(job, wishes, output, settings)


PART = shrink
