"""The float precisions of a search: what a whole network's float layers run in, as a setting of the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convkit.cli import show
from convkit.compress.errors import NotAvailableError
from convkit.compress.option import FLOAT, Option

if TYPE_CHECKING:
    from convkit.compress.model import Model
    from convkit.compress.target import Target
    from convkit.runtimes.session import Runtime
    from convkit.runtimes.session.knobs import Knobs


@dataclass(frozen=True, slots=True)
class Precision:
    """What the engine calls it, and the Option that a layer in float then has."""

    name: str
    floating: Option

    @property
    def knobs(self) -> Knobs:
        """The engine's knob, where it is not its default."""
        return {} if self.floating == FLOAT else {"precision": self.name}


F32 = Precision("f32", FLOAT)


def asked(target: Target, formats: Sequence[str]) -> tuple[tuple[str, ...], tuple[Precision, ...]]:
    """The formats that layers may have among those asked for, and the precisions that the whole network may.

    The usual one is always open. Raises ConvkitError for what is no format to search in on `target`, NotAvailableError
    where nothing is asked for but what this device lacks; where there is more, a note says so.
    """
    from convkit.compress.search import space

    whole = [name for name in formats if name in target.formats and target.formats[name].whole]
    layers = tuple(name for name in formats if name not in whole)
    space.check_formats(layers, target)
    known = {format_of(name): named(name) for name in _precisions(target)} if whole else {}
    lacking = [f"{target.engine} computes nothing in {name} on this device" for name in whole if name not in known]
    if lacking and len(lacking) == len(formats):
        raise NotAvailableError(lacking[0], hint="search on one that has it, or among formats such as int8")
    for lacks in lacking:
        show.note(f"{lacks}: searching without it")
    return layers, (F32, *(known[name] for name in whole if name in known))


def _precisions(target: Target) -> tuple[str, ...]:
    from convkit.compress import parts

    runtime: Runtime = parts.load("runtimes", target.engine)
    return runtime.precisions()


def named(name: str) -> Precision:
    """The precision that an engine calls `name`."""
    return Precision(name, Option(format_of(name), format_of(name)))


def format_of(precision: str) -> str:
    """The format that an engine's precision is: "fp32" for "f32"."""
    from convkit.runtimes.latency import measure
    from convkit.runtimes.session import Options

    return measure.floating(Options(precision=precision))


def simulated(network: Model, target: Target, knobs: Knobs) -> Model:
    """`network` in the arithmetic of the engine that runs it with `knobs`."""
    from convkit.compress import precision, simulate

    found = format_of(str(knobs.get("precision", F32.name)))
    return precision.in_precision(simulate.integers(network), target, found)


def check(knobs: Knobs, engine: str) -> None:
    """Raise NotAvailableError for a precision that this device does not compute in: it would run another in silence."""
    from convkit.compress import parts

    name = str(knobs.get("precision", F32.name))
    runtime: Runtime = parts.load("runtimes", engine)
    if name not in (F32.name, *runtime.precisions()):
        raise NotAvailableError(
            f"{engine} computes nothing in {name} on this device",
            hint="take the plan's precision out, or another machine",
        )
