"""A novel convolution: a layer that a paper brought, in plain torch. Parts in `compress/convs`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from convkit.compress import graph as graphs
from convkit.compress import parts

if TYPE_CHECKING:
    from torch import fx, nn

FOLDER = "compress/convs"
_PROVEN = Path(__file__).parent / "convs" / "proven"
TIERS = {
    "T0": "an ordinary convolution once trained",
    "T1": "standard operators",
    "T2": "standard operators where sizes, batch or periods are fixed",
    "T3": "a dense form for small grids",
}


def named(module: str) -> str:
    """The part that the Python module called `module` holds; "" where it is none."""
    return parts.of_module(FOLDER, module)


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
    operators and layers inside that stay in float when the rest of the network is quantized, and why.
    """

    paper: str
    tier: str
    layers: tuple[type[nn.Module], ...]
    examples: Callable[[], Iterable[Example]]
    kept: Mapping[str, str] = field(default_factory=dict)


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


def reason_to_keep(node: fx.Node) -> str:
    """Why the novel convolution that `node` is part of wants it in float; "" where there is no reason."""
    name, _, place = node.meta.get("op", "").partition(":")
    if not name:
        return ""
    kept: Mapping[str, str] = parts.load(FOLDER, name).kept
    inside = graphs.key(node).removeprefix(f"{place}.")
    return kept.get(graphs.operator(node), "") or kept.get(inside, "")


def kept_in(graph: fx.GraphModule) -> dict[str, str]:
    """What stays in float for such a reason: layers, or tensors of what is no layer, each with the reason."""
    reasons = {graphs.key(node): reason_to_keep(node) for node in graphs.computes(graph)}
    return {name: reason for name, reason in reasons.items() if reason}
