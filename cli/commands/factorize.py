"""Fewer parameters by design: convolutions written as chains of smaller ones, after a network is trained or before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from convkit.cli import carrying, options, search_options, show, values
from convkit.cli import output as place
from convkit.compress import record
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from convkit.cli.search_options import Settings
    from convkit.compress.data import DataRef
    from convkit.compress.form import Chosen
    from convkit.compress.model import ModelRef

SCHEMA_VERSION = 1
_USUAL, _BEFORE, _SHARE = ("channel_svd", "spatial_svd", "tucker2"), "one_way", 0.15
FACTORY = "factored.py"
_TEXT = '''"""{path} with convolutions in the form {form}, by convkit: {left:,} of {whole:,} parameters.

`build` makes the network to train, with names of its own where chains stand: NAME.0, NAME.1, …; `dense` makes the
network of ordinary convolutions that a trained one computes.
"""

from convkit.compress import apriori, function

FORMS = {{
{forms}
}}


def build(**arguments):
    return apriori.rewrite(function.load({path!r})(**arguments), apriori.parsed(FORMS), seed={seed})


def dense(weights=None, **arguments):
    return apriori.dense(apriori.loaded(build(**arguments), weights), apriori.parsed(FORMS))
'''


@click.command
@options.model
@options.data(what="Samples of a trained network's input")
@options.usual_target
@options.output
@click.option(
    "--form",
    "forms",
    type=values.Part("compress/forms"),
    multiple=True,
    metavar="NAME",
    help="How convolutions are written; `convkit list forms`.  [default: channel_svd, spatial_svd, tucker2; one_way "
    "before training]",
)
@click.option(
    "--formats", type=values.WORD, metavar="NAME,...", help="Search the format of each layer among these, too: int8."
)
@click.option("--apriori", is_flag=True, help="Before training: write a function that builds the smaller network.")
@click.option(
    "--params",
    type=values.Share(),
    metavar="SHARE",
    help="Parameters of the network before training, of those that it has.  [default: <=15%]",
)
@search_options.untabled
def factorize(
    *,
    model: ModelRef,
    data: DataRef | None,
    target: str | None,
    output: str,
    forms: tuple[str, ...],
    formats: str | None,
    apriori: bool,
    params: float | None,
    settings: Settings,
) -> None:
    """Write a network's convolutions as chains of smaller ones, where that makes it faster.

    Of a trained network each layer keeps its own form or takes one of those asked for, with ranks by what it reads of
    the data: by the loss that this brings to the outputs, and by latency measured on the target, as `convkit quantize
    --formats` chooses formats; with --formats both are chosen at once. Nothing slower than the original is kept, but
    where --size or --bops asks for it. OUTPUT gets model.onnx, plan.yaml, manifest.json and report.json.

    With --apriori, the network is not trained yet: OUTPUT gets factored.py, whose `build` makes the network to train,
    in the way and with the arguments of your own function, and `dense` the ordinary convolutions that it then computes.
    Weights are drawn so that numbers keep their variance from layer to layer. Whether a chain or the convolution is
    faster, layer by layer, is what factorizing `dense` in the same form tells: the chains are exact.

    \b
    Examples:
      convkit factorize net.onnx --data calib.npz --target openvino-cpu -o out/
      convkit factorize net.onnx --data calib.npz --form tucker2 --latency "<=0.7x" -o out/
      convkit factorize net.onnx --data calib.npz --formats int8 --size "<=0.15x" -o out/
      convkit factorize models:build --apriori -o out/
      convkit factorize models.unet:UNet --arg classes=3 --apriori --form cp --params "<=10%" -o out/
      convkit train out.factored:build --shape x:Nx3x32x32 --data train.npz -o trained/
      convkit export out.factored:dense --arg weights=trained/weights.safetensors --shape x:Nx3x32x32 -o float/
      convkit factorize out.factored:dense --arg weights=trained/weights.safetensors --shape x:Nx3x32x32 --form one_way
        --data calib.npz -o float/
    """
    if apriori:
        _check(model, forms, data, settings)
        if formats:
            raise ConvkitError("before training there are no formats to search", hint="leave out --formats")
        _write(model, forms, params or _SHARE, output, settings)
        return
    if params is not None:
        hint = "add --apriori and leave out --data, or give --size, --latency or --bops"
        raise ConvkitError("--params is asked of a network before training", hint=hint)
    if data is None:
        raise ConvkitError("a trained network's layers need --data", hint="give it, or --apriori before training")
    from convkit.cli import wishing

    place.check(output, settings.plan, dry_run=settings.dry_run)
    job = carrying.job(model, data, target, settings)
    asked = job, formats or "", None, settings.budgets
    wishes = wishing.wishes(*asked, by_labels=settings.by_labels, forms=",".join(forms or _USUAL))
    carrying.carry_out(job, wishes, output, settings)


def _write(model: ModelRef, forms: tuple[str, ...], params: float, output: str, settings: Settings) -> None:
    """The factory of the network before training."""
    from convkit.compress import apriori
    from convkit.compress.sources import factory

    form, seed = forms[0] if forms else _BEFORE, settings.seed
    place.check(output, dry_run=settings.dry_run)
    network = apriori.padded(factory.build(model))
    whole = _count(network)
    chosen, names = apriori.chosen(network, form, params), list(apriori.convolutions(network))
    left = _count(apriori.rewrite(network, chosen, seed))
    report = _report(form, chosen, names, (left, whole))
    if settings.dry_run:
        show.text(f"would write {left:,} of {whole:,} parameters ({left / whole:.1%}) to {Path(output) / FACTORY}")
        return
    with record.output_folder(output) as folder:
        forms_text = "\n".join(f"    {name!r}: {str(one)!r}," for name, one in chosen.items())
        text = _TEXT.format(path=model.path, form=form, left=left, whole=whole, forms=forms_text, seed=seed)
        record.write_bytes(folder / FACTORY, text.encode())
        digests = {"factory": record.digest_bytes(text.encode())}
        place.describe(folder, report, digests=digests, seed=seed)
    _show(report, output, as_json=settings.as_json)


PART = factorize


def _check(model: ModelRef, forms: tuple[str, ...], data: DataRef | None, settings: Settings) -> None:
    if len(forms) > 1:
        raise ConvkitError("before training, all layers have one form", hint=f"give one of --form {', '.join(forms)}")
    carrying.check_untrained(model, settings, data=data)
    if model.weights is not None:
        raise ConvkitError("--weights are those of another network", hint="forms are drawn anew and trained")


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _report(form: str, chosen: Mapping[str, Chosen], names: list[str], counts: tuple[int, int]) -> dict[str, Any]:
    left, whole = counts
    return {
        "schema_version": SCHEMA_VERSION,
        "form": form,
        "parameters": left,
        "original_parameters": whole,
        "layers": {name: str(chosen[name]) if name in chosen else None for name in names},
    }


def _show(report: Mapping[str, Any], output: str, *, as_json: bool) -> None:
    if as_json:
        show.json(report)
        return
    show.table(("convolution", "form"), [(name, text or "as it was") for name, text in report["layers"].items()])
    left, whole = report["parameters"], report["original_parameters"]
    show.text(f"{Path(output) / FACTORY}: {left:,} of {whole:,} parameters ({left / whole:.1%})")
