"""What `convkit shrink --apriori` does: a function that builds a smaller network, or one that hardware likes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.cli import output as place
from convkit.cli import show
from convkit.compress import record
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    whole = _count(factory.build(model))
    left = _count(design.made(model.path, dict(model.args), model.weights, **how))
    report = {"schema_version": SCHEMA_VERSION, "parameters": left, "original_parameters": whole, **how}
    if settings.dry_run:
        show.text(f"would write {left:,} of {whole:,} parameters ({left / whole:.1%}) to {Path(output) / FACTORY}")
        return
    words = ", ".join(f"{name}={value!r}" for name, value in how.items())
    text = _TEXT.format(path=model.path, left=left, whole=whole, asked=words)
    with record.output_folder(output) as folder:
        record.write_text(folder / FACTORY, text)
        place.describe(folder, report, digests={"factory": record.digest_bytes(text.encode())}, seed=settings.seed)
    _show(report, output, as_json=settings.as_json)


def _check(model: ModelRef, asked: Asked, settings: Settings) -> None:
    from convkit.compress import function

    if asked.products is None and not asked.deform:
        raise ConvkitError("nothing is asked of the network before training", hint="give --products or --deform")
    given: dict[str, object] = {f"--{name}": text for name, text in settings.budgets.items()}
    given |= {"--keep": settings.keep, "--plan": settings.plan, "--by-labels": settings.by_labels}
    wrong = [name for name, value in given.items() if value]
    if wrong:
        raise ConvkitError("before training there is nothing to measure", hint=f"leave out {', '.join(wrong)}")
    if not function.names_one(model.path):
        raise ConvkitError(f"{model.path} is no function that builds a network", hint="give MODULE:FUNCTION")
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


def _show(report: Mapping[str, Any], output: str, *, as_json: bool) -> None:
    if as_json:
        show.json(report)
        return
    left, whole = report["parameters"], report["original_parameters"]
    show.text(f"{Path(output) / FACTORY}: {left:,} of {whole:,} parameters ({left / whole:.1%})")
