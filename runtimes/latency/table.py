"""The LatencyTable: seconds of a network's layers in each format, and of changes of format between them.

Times add up: engines run one kernel after the other. What a kernel takes depends on its format; what lies between two
kernels, on whether theirs differ.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convkit.compress import record
from convkit.compress.errors import ConvkitError
from convkit.compress.search.problem import Edge
from convkit.runtimes.latency.disturbance import Disturbance
from convkit.runtimes.latency.structure import Tensor

SCHEMA_VERSION = 2


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What the times hold for: the network (sha256), the machine, the engine, its version and its options."""

    model: str
    target: str
    engine: str
    version: str
    machine: Mapping[str, Any]
    options: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """sha256 of it all."""
        return record.digest_json(dataclasses.asdict(self))


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """Seconds a call. `floating` is the format of layers that are not in low precision ("fp32", "bf16").

    `layers`: layer -> format of its activations -> seconds. `changes`: tensor -> "FROM>TO" -> seconds, paid once where
    any of its readers runs in another format than its producer. `rest`: what belongs to no layer.
    """

    fingerprint: Fingerprint
    estimated: bool
    floating: str
    layers: Mapping[str, Mapping[str, float]]
    tensors: tuple[Tensor, ...]
    changes: Mapping[str, Mapping[str, float]]
    rest: float
    mapped: float = 1.0
    """Share of the profiled time that was found to belong to a layer or a tensor."""
    disturbance: Disturbance = field(default_factory=Disturbance)

    def as_dict(self) -> dict[str, Any]:
        """JSON of it."""
        return {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}


def predict(table: LatencyTable, formats: Mapping[str, str]) -> float:
    """Seconds a call with activations of layers in `formats`; those that are not named run in float.

    Raises ConvkitError for a layer or a format that the table has no time for.
    """
    chosen = {name: formats.get(name, table.floating) for name in table.layers}
    unknown = next((name for name in formats if name not in table.layers), None)
    if unknown is not None:
        raise ConvkitError(f"the latency table has no layer {unknown!r}", hint="it is of another network")
    seconds = sum((_layer(table, name, number) for name, number in chosen.items()), table.rest)
    return seconds + sum(_changes(table, tensor, chosen) for tensor in table.tensors)


def _layer(table: LatencyTable, name: str, number: str) -> float:
    if number not in table.layers[name]:
        known = ", ".join(table.layers[name])
        raise ConvkitError(f"there is no time for layer {name!r} in {number}", hint=f"there is: {known}")
    return table.layers[name][number]


def _changes(table: LatencyTable, tensor: Tensor, chosen: Mapping[str, str]) -> float:
    costs = table.changes.get(tensor.name, {})
    return sum(costs.get(key, 0.0) for key in changes(tensor, chosen, table.floating))


def changes(tensor: Tensor, formats: Mapping[str, str], floating: str) -> list[str]:
    """The changes of format, "FROM>TO", that `tensor` goes through when layers run in `formats`."""
    made = formats.get(tensor.producer, floating)
    wanted = dict.fromkeys(formats.get(reader, floating) for reader in tensor.readers)
    return [f"{made}>{number}" for number in wanted if number != made]


def edges(table: LatencyTable) -> tuple[Edge, ...]:
    """Changes of format on every tensor, as the choice among formats has them; OUTSIDE may be one of its readers."""
    return tuple(
        Edge(tensor.producer, tensor.readers, directed=_directed(table, tensor), given=_given(table, tensor))
        for tensor in table.tensors
    )


def _given(table: LatencyTable, tensor: Tensor) -> str:
    return "" if tensor.producer else table.floating


def _directed(table: LatencyTable, tensor: Tensor) -> dict[tuple[str, str], float]:
    pairs = ((key.partition(">"), seconds) for key, seconds in table.changes.get(tensor.name, {}).items())
    return {(before, after): seconds for (before, _, after), seconds in pairs}


def write(table: LatencyTable, path: Path) -> None:
    """The table as JSON, atomically."""
    record.write_json(path, table.as_dict())


def read(path: Path) -> LatencyTable:
    """The table in a file; ConvkitError for one that holds none."""
    try:
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConvkitError(f"{path} is no latency table: {error}", hint="delete it, it is measured again") from error


def _parse(text: dict[str, Any]) -> LatencyTable:
    if text.pop("schema_version") != SCHEMA_VERSION:
        raise ValueError("another convkit wrote it")
    fingerprint = Fingerprint(**text.pop("fingerprint"))
    tensors = tuple(Tensor(**{**given, "readers": tuple(given["readers"])}) for given in text.pop("tensors"))
    disturbance = Disturbance(**text.pop("disturbance"))
    return LatencyTable(fingerprint=fingerprint, tensors=tensors, disturbance=disturbance, **text)
