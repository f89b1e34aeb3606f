"""A novel convolution: a layer that a paper brought, in plain torch. Parts in `compress/convs`."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from convkit.compress import graph as graphs
from convkit.compress import parts
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    import onnx
    from torch import fx, nn

FOLDER = "compress/convs"
DOMAIN, PART_OF = "convkit", "convkit.op"
"""Of nodes that stand for one in ONNX files; and the key of a node's metadata that says which it is part of,
`NAME:PLACE`, PLACE the layer of the network that it is.
"""
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


def tag(node: onnx.NodeProto) -> str:
    """What an ONNX node says it is part of; "" where it says nothing."""
    return next((entry.value for entry in node.metadata_props if entry.key == PART_OF), "")


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
    try:
        kept: Mapping[str, str] = parts.load(FOLDER, name).kept if name else {}
    except ConvkitError:  # a file may be of somebody who has a part that is not here
        return ""
    inside = "." + graphs.key(node).removeprefix(f"{place}.")
    named = (reason for layer, reason in kept.items() if fnmatch.fnmatchcase(inside, f"*.{layer}"))
    return kept.get(graphs.operator(node), "") or next(named, "")


def kept_in(graph: fx.GraphModule) -> dict[str, str]:
    """What stays in float for such a reason: layers, or tensors of what is no layer, each with the reason."""
    reasons = {graphs.key(node): reason_to_keep(node) for node in graphs.computes(graph)}
    return {name: reason for name, reason in reasons.items() if reason}
