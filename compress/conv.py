"""A novel convolution: a layer that a paper brought, in plain torch. Parts in `compress/convs`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from convkit.compress import parts
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from torch import nn

FOLDER = "compress/convs"
_PROVEN = Path(__file__).parent / "convs" / "proven"
TIERS = {
    "T0": "an ordinary convolution once trained",
    "T1": "standard operators",
    "T2": "standard operators where sizes, batch or periods are fixed",
    "T3": "a dense form for small grids",
}


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
    operators, and layers inside by the end of their names (`*` stands for anything), that stay in float when the rest
    of the network is quantized, and why.
    """

    paper: str
    tier: str
    layers: tuple[type[nn.Module], ...]
    examples: Callable[[], Iterable[Example]]
    usual: Callable[[], Example] | None = None
    """One of a size that networks have, for benches."""

    kept: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.layers, tuple) or not all(isinstance(layer, type) for layer in self.layers):
            raise TypeError(f"layers is a tuple of classes, (Layer,), not {self.layers!r}")
        if self.tier not in TIERS:
            raise ValueError(f"there is no tier {self.tier!r}; there is: {', '.join(TIERS)}")
        reasons = [*self.kept.items()] if isinstance(self.kept, Mapping) else [(self.kept, None)]
        if not all(isinstance(word, str) for reason in reasons for word in reason):
            raise TypeError(f"kept is reasons by operator or layer, {{'Sigmoid': 'why'}}, not {self.kept!r}")


@dataclass(frozen=True, slots=True)
class ProvenFormat:
    """`layers` of the first example that TensorRT runs in a format, and the output's signal to noise in dB."""

    layers: int
    sqnr: float


@dataclass(frozen=True, slots=True)
class Proof:
    """What tests have found of a novel convolution: `engines` and what they do with it, `formats`, what stays in float.

    It is written by the test that finds it, which fails where the file says anything else.
    """

    paper: str
    tier: str
    engines: Mapping[str, str]
    formats: Mapping[str, ProvenFormat]
    kept: Mapping[str, str]


def proof(name: str) -> Proof | None:
    """What is proven of the part called `name`; None for somebody else's."""
    file = _PROVEN / f"{name}.json"
    if not file.is_file():
        return None
    found = json.loads(file.read_text())
    return Proof(**found | {"formats": {key: ProvenFormat(**value) for key, value in found["formats"].items()}})


def load(name: str) -> Conv:
    """The part called `name`. Raises ConvkitError for one that there is not, or that is something else."""
    found = parts.load(FOLDER, name)
    if not isinstance(found, Conv):
        raise ConvkitError(f"the part {name!r} of {FOLDER} is a {type(found).__name__}, not a Conv", hint="repair it")
    return found
