"""The Builds: the few versions of a network whose profiles tell what every other version takes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from convkit.compress import format as formats
from convkit.compress import placement
from convkit.compress.format import Integer
from convkit.compress.model import Model
from convkit.compress.option import Option
from convkit.compress.plan import LayerPlan
from convkit.compress.search import space
from convkit.compress.target import Target

FLOAT, LOW = "float", "low"
Write = Callable[[Mapping[str, LayerPlan]], Path]
"""Makes the file of the network with these layers in low precision, the others in float."""

Layers = Mapping[str, LayerPlan]


@dataclass(frozen=True, slots=True)
class Build:
    """One version: the layers in low precision, and its file. `single`: all layers with a weight are in one format,
    which the device at hand may lack."""

    name: str
    layers: Layers
    path: Path
    single: bool = False

    @property
    def formats(self) -> dict[str, str]:
        """Format of the activations of each layer in low precision."""
        return {name: layer.activation for name, layer in self.layers.items()}


def patterns(model: Model, target: Target, names: Collection[str] | None = None) -> dict[str, Layers]:
    """Name -> layers in low precision: none, all, mixtures in which neighbours differ both ways, and all in each of
    the formats `singles`.

    Of these `names`, where they are given.
    """
    graph = model.graph
    everything = placement.place(graph, target)
    weighted = [name for name, layer in everything.items() if layer.weight is not None]
    found: dict[str, Layers] = {FLOAT: {}, LOW: everything}
    for name in singles(target):
        layers = space.uniform(model, target, everything, Option(name, name))
        found |= {name: layers} if layers else {}
    if names is not None:
        return {name: layers for name, layers in found.items() if name in names}
    for name, kept in _mixtures(weighted).items():
        layers = placement.place(graph, target, kept)
        if layers not in found.values():
            found[name] = layers
    return found


def singles(target: Target) -> tuple[str, ...]:
    """The floats that single layers run in on `target`: their times are measured beside those of its own integers."""
    return tuple(
        name
        for name in target.formats
        if target.runs_layers_in(name) and not isinstance(formats.load(name), Integer) and not formats.is_exact(name)
    )


def _mixtures(weighted: list[str]) -> dict[str, set[str]]:
    """Layers in float: every second one, the others, and every second pair."""
    return {
        "even": {name for index, name in enumerate(weighted) if index % 2},
        "odd": {name for index, name in enumerate(weighted) if not index % 2},
        "pairs": {name for index, name in enumerate(weighted) if index % 4 < 2},  # noqa: PLR2004 - pairs
    }


def carried(path: Path) -> dict[str, str]:
    """Codes and numbers made of them, and the nodes that make either -> the tensor that was quantized."""
    import onnx

    found: dict[str, str] = {}
    for node in onnx.load(path, load_external_data=False).graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            tensor = found.get(node.input[0], node.input[0])
            found |= dict.fromkeys((node.name, *node.output), tensor)
    return found
