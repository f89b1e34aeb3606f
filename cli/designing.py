"""What `convkit shrink --apriori` does: a function that builds a smaller network, or one that hardware likes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.cli import carrying, show
from convkit.cli import output as place
from convkit.compress import record
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from convkit.cli.search_options import Settings
    from convkit.compress.model import ModelRef

SCHEMA_VERSION = 1
FACTORY = "designed.py"
_TEXT = '''"""{path} made smaller or easier for hardware, by convkit: {left:,} of {whole:,} parameters.

`build` makes the network to train; with `weights`, those of the function it is made of, to train further.
"""

from convkit.compress import design


def build(weights=None, **arguments):
    return design.made({path!r}, arguments, weights, {asked})
'''


@dataclass(frozen=True, slots=True)
class Asked:
    """Of a network before it is trained: the part of its `products` that it is to have, and what its deformable
    convolutions are to be; `step`: what widths are multiples of."""

    products: float | None
    deform: tuple[str, ...]
    step: int


def write(model: ModelRef, asked: Asked, output: str, settings: Settings) -> None:
    """The factory. Raises ConvkitError for what belongs to trained networks, and where nothing is asked for."""
    from convkit.compress import design
    from convkit.compress.sources import factory

    _check(model, asked, settings)
    place.check(output, dry_run=settings.dry_run)
    how: dict[str, Any] = {
        name: value for name, value in (("deform", asked.deform), ("products", asked.products)) if value
    }
    if asked.products is not None:
        how |= {"step": asked.step, "shapes": tuple(map(_shape, model.shapes.items()))}
    networks = factory.build(model), design.made(model.path, dict(model.args), model.weights, **how)
    whole, left = map(_count, networks)
    report: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "parameters": left, "original_parameters": whole, **how}
    if asked.products is not None:
        report |= _scaled(model, networks, asked.products)
    if settings.dry_run:
        show.text(f"would write {Path(output) / FACTORY}: {_said(report)}")
        return
    words = ", ".join(f"{name}={value!r}" for name, value in how.items())
    text = _TEXT.format(path=model.path, left=left, whole=whole, asked=words)
    with record.output_folder(output) as folder:
        record.write_text(folder / FACTORY, text)
        place.describe(folder, report, digests={"factory": record.digest_bytes(text.encode())}, seed=settings.seed)
    _show(report, output, as_json=settings.as_json)


def _check(model: ModelRef, asked: Asked, settings: Settings) -> None:
    if asked.products is None and not asked.deform:
        raise ConvkitError("nothing is asked of the network before training", hint="give --products or --deform")
    carrying.check_untrained(model, settings)
    if asked.products is not None and not model.shapes:
        raise ConvkitError("how many products a network has hangs on its inputs", hint="give --shape INPUT:SHAPE")


def _shape(given: tuple[str, Any]) -> str:
    """As the user wrote it."""
    name, own = given
    sizes = [
        str(size) if isinstance(size, int) else f"{size}={sample}"
        for size, sample in zip(own.shape, own.sample, strict=True)
    ]
    return ":".join([name, *([own.dtype] if own.dtype else []), "x".join(sizes)])


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _scaled(model: ModelRef, networks: Sequence[nn.Module], asked: float) -> dict[str, float]:
    """Of the report: what is left of the products on inputs of the same size, and how much smaller those are meant to
    be. Warns where training will lack what a traced network has not."""
    from torch.nn.modules.dropout import _DropoutNd

    from convkit.compress import analysis, scaling
    from convkit.compress.sources import factory

    if any(isinstance(one, _DropoutNd) and one.p for one in networks[0].modules()):
        show.note(f"{model.path} has dropout, and what is made of it has none")
    whole, left = (
        sum(layer.macs for layer in analysis.analyse(factory.from_module(one.eval(), model)).layers) for one in networks
    )
    return {"products_left": left / whole, "input_size": scaling.compound(asked).size}


def _said(report: Mapping[str, Any]) -> str:
    left, whole = report["parameters"], report["original_parameters"]
    words = f"{left:,} of {whole:,} parameters ({left / whole:.1%})"
    if "products_left" not in report:
        return words
    more = f"{report['products_left']:.1%} of the products on inputs of the same size"
    return f"{words}, {more}; for {report['products']:.0%} train on inputs {report['input_size']:.2f}x as high and wide"


def _show(report: Mapping[str, Any], output: str, *, as_json: bool) -> None:
    if as_json:
        show.json(report)
    else:
        show.text(f"{Path(output) / FACTORY}: {_said(report)}")
