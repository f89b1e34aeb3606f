"""A novel convolution: a layer that a paper brought, in plain torch. Parts in `compress/convs`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

FOLDER = "compress/convs"
TIERS = {
    "T0": "an ordinary convolution once trained",
    "T1": "standard operators",
    "T2": "standard operators where sizes, batch or periods are fixed",
    "T3": "a dense form for small grids",
}


def named(module: str) -> str:
    """The part that the Python module called `module` holds; "" where it is none."""
    folder, _, name = module.rpartition(".")
    return name if folder == "convkit.compress.convs" and not name.startswith("_") else ""


@dataclass(frozen=True, slots=True)
class Example:
    """A small `layer` with parameters and statistics drawn by a seed, and the shapes of its inputs, the batch first."""

    layer: nn.Module
    shapes: Mapping[str, tuple[int, ...]]
    batches: tuple[int, ...] = (1, 3)
    """Batches that it takes: an op that mixes samples takes one."""


@dataclass(frozen=True, slots=True)
class Conv:
    """`layers` are the modules that compute it, `tier` (one of TIERS) what becomes of them in an engine.

    A network that holds one is traced as any other, and the nodes of each call know that they are its. `kept`:
    operators inside that are to stay in float, and why; quantization does not read it yet.
    """

    paper: str
    tier: str
    layers: tuple[type[nn.Module], ...]
    examples: Callable[[], Iterable[Example]]
    kept: Mapping[str, str] = field(default_factory=dict)
