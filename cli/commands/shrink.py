"""Fewer channels: layers made narrower where that loses least for the time it saves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from convkit.cli import carrying, designing, options, search_options, show, values
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from convkit.cli.designing import Asked
    from convkit.cli.search_options import Settings
    from convkit.compress.data import DataRef
    from convkit.compress.model import ModelRef


@click.command
@options.model
@options.data(what="Samples of a trained network's input")
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
@click.option("--apriori", is_flag=True, help="Before training: write a function that builds the smaller network.")
@click.option(
    "--products",
    type=values.Share(),
    metavar="SHARE",
    help="Products of the network before training, of those that it has: <=25%, mostly by narrower layers.",
)
@click.option(
    "--deform",
    type=values.WORD,
    metavar="KIND,...",
    help="Deformable convolutions that hardware likes, before training or in between: bound, square, round, depthwise.",
)
@search_options.untabled
def shrink(
    *,
    model: ModelRef,
    data: DataRef | None,
    target: str | None,
    output: str,
    step: int,
    importance: str,
    formats: str | None,
    forms: str | None,
    apriori: bool,
    products: float | None,
    deform: str | None,
    settings: Settings,
) -> None:
    """Take channels out of a trained network, where that makes it faster and loses least.

    Channels that are added, multiplied or joined together go together; what each group is worth to the outputs comes
    from a few backward passes unless --importance says another way, what layers of other widths take from profiles of
    this machine. Layers that read less than before are fitted, without training, to make what they made. With --formats
    and --forms the same search decides about these as well, within the one budget. Nothing slower than the original is
    kept, but where --size or --bops asks for it. OUTPUT gets model.onnx, plan.yaml, manifest.json and report.json.

    Where MODEL is a family that `convkit train --elastic` left, the most accurate of its members within --latency is
    picked, for as many targets as there are from the one training; the data needs labels then.

    With --apriori, the network is to be trained still, or further: OUTPUT gets designed.py, whose `build` makes it from
    your own function, at about a part of its products (--products, fast compound scaling) or with deformable
    convolutions that hardware likes (--deform, CoDeNet).

    \b
    Examples:
      convkit shrink net.onnx --data calib.npz --target openvino-cpu -o out/
      convkit shrink net.onnx --data calib.npz --latency "<=0.6x" -o out/
      convkit shrink net.onnx --data calib.npz --formats int8 --latency "<=0.3x" -o out/
      convkit shrink family/ --data val.npz --latency "<=5ms" -o out/
      convkit shrink net.onnx --data calib.npz --forms tucker2 --step 16 --size "<=0.5x" -o out/
      convkit shrink models:build --apriori --products "<=25%" --shape x:Nx3x64x64 -o out/
      convkit shrink models:build --apriori --deform square,round -o out/
    """
    if apriori:
        _before_training(
            model, data, formats or forms, designing.Asked(products, _kinds(deform), step), output, settings
        )
        return
    if products is not None or deform:
        raise ConvkitError("--products and --deform are of networks that are to be trained", hint="add --apriori")
    if data is None:
        raise ConvkitError("a trained network's channels need --data", hint="give it, or --apriori before training")
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
        given = [name for name in ("plan", "keep", "by_labels", "resume") if getattr(settings, name)]
        given += _typed("max_drop", "min_sqnr", "step", "importance")
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


def _typed(*names: str) -> list[str]:
    """Those of the options that the user gave, whatever their default."""
    source = click.get_current_context().get_parameter_source
    return [name for name in names if source(name) is ParameterSource.COMMANDLINE]


def _kinds(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",")) if text else ()


def _before_training(
    model: ModelRef, data: DataRef | None, among: str | None, asked: Asked, output: str, settings: Settings
) -> None:
    if data is not None or among:
        raise ConvkitError("before training there is nothing to search", hint="leave out --data, --formats and --forms")
    given = _typed("target", "max_drop", "min_sqnr", "importance", *(() if asked.products else ("step",)))
    if given:
        option = f"--{given[0].replace('_', '-')}"
        raise ConvkitError(f"{option} is for a trained network", hint=f"leave out {option}")
    designing.write(model, asked, output, settings)
