"""The Fit: from profiles of builds to seconds per layer and format, and per change of format."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from convkit.runtimes.latency import table as tables
from convkit.runtimes.latency.builds import Build
from convkit.runtimes.latency.builds import carried as carried_in
from convkit.runtimes.latency.profile import Profile
from convkit.runtimes.latency.structure import OUTSIDE, Structure, Tensor

Formats = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Fitted:
    """The numbers of a LatencyTable."""

    layers: Mapping[str, Mapping[str, float]]
    changes: Mapping[str, Mapping[str, float]]
    rest: float
    mapped: float


@dataclass(frozen=True, slots=True)
class _Sorted:
    """A build's time by the layer whose kernel or whose result's format it went into; OUTSIDE: the inputs'."""

    formats: Formats
    own: Mapping[str, float]
    rest: float
    seconds: float


def fit(network: Structure, builds: Sequence[tuple[Build, Profile]], floating: str) -> Fitted:
    """Times from profiled builds, among them one without and one with all layers in low precision."""
    found = [_sorted(network, build, profile) for build, profile in builds]
    uniform = [one for one in found if not one.formats or set(one.formats) == set(network.low)]
    layers = {name: _layer(name, uniform, floating) for name in network.layers}
    layers[OUTSIDE] = {floating: next(one.own.get(OUTSIDE, 0.0) for one in found if not one.formats)}
    rest = statistics.median(one.rest for one in found)
    raw: dict[tuple[str, str], list[float]] = {}
    for one in found:
        for key, seconds in _charges(network, one, layers, floating).items():
            raw.setdefault(key, []).append(seconds)
    mapped = min(1 - one.rest / one.seconds for one in found)
    rest += layers.pop(OUTSIDE)[floating]
    return Fitted(layers, _changes(network, raw, floating), rest, mapped)


def _sorted(network: Structure, build: Build, profile: Profile) -> _Sorted:
    carried = carried_in(build.path)
    own: dict[str, float] = {}
    rest = 0.0
    for (_, origins), seconds in profile.nodes.items():
        layer = network.layer(origins, carried)
        if layer is None:
            rest += seconds
        else:
            own[layer] = own.get(layer, 0.0) + seconds
    return _Sorted(build.formats, own, rest, profile.seconds)


def _layer(name: str, uniform: Sequence[_Sorted], floating: str) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for one in uniform:
        found.setdefault(one.formats.get(name, floating), []).append(one.own.get(name, 0.0))
    return {number: statistics.fmean(seconds) for number, seconds in found.items()}


def _charges(
    network: Structure, one: _Sorted, layers: Mapping[str, Mapping[str, float]], floating: str
) -> dict[tuple[str, str], float]:
    """What every change of format in a build cost there, by tensor and change."""
    found: dict[tuple[str, str], float] = {}
    for key, seconds in _excess(network, one, layers, floating):
        found[key] = found.get(key, 0.0) + seconds
    return found


def _excess(
    network: Structure, one: _Sorted, layers: Mapping[str, Mapping[str, float]], floating: str
) -> Iterator[tuple[tuple[str, str], float]]:
    """What each layer takes here beyond its own time, charged to the change behind it, else before it."""
    changed = {tensor: tables.changes(tensor, one.formats, floating) for tensor in network.tensors}
    for name in (*network.layers, OUTSIDE):
        usual = layers[name][one.formats.get(name, floating)]
        more = one.own.get(name, 0.0) - usual
        made = [t for t in network.tensors if t.producer == name and changed[t]]
        read = [t for t in network.tensors if name in t.readers and changed[t]] if name else []
        charged = made or read
        for tensor in charged:
            for key in changed[tensor]:
                yield (tensor.name, key), more / len(charged)


def _changes(
    network: Structure, raw: Mapping[tuple[str, str], Sequence[float]], floating: str
) -> dict[str, dict[str, float]]:
    """Seconds of every change there may be: as seen, else as others of its kind by their size."""
    kinds: dict[str, list[tuple[int, float]]] = {}
    sizes = {tensor.name: tensor.elements for tensor in network.tensors}
    for (name, key), seconds in raw.items():
        kinds.setdefault(key, []).append((sizes[name], statistics.fmean(seconds)))
    lines = {key: _line(points) for key, points in kinds.items()}
    found: dict[str, dict[str, float]] = {}
    for tensor in network.tensors:
        for key in _possible(network, tensor, floating):
            seen = raw.get((tensor.name, key))
            slope, offset = lines.get(key, (0.0, 0.0))
            typical = statistics.fmean(seen) if seen else offset + slope * tensor.elements
            found.setdefault(tensor.name, {})[key] = max(0.0, typical)
    return found


def _possible(network: Structure, tensor: Tensor, floating: str) -> Iterator[str]:
    made = network.low.get(tensor.producer)
    for reader in tensor.readers:
        wanted = network.low.get(reader)
        if made:
            yield f"{made}>{floating}"
        if wanted:
            yield f"{floating}>{wanted}"


def _line(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Slope and offset, neither negative, of seconds over elements (least squares)."""
    sizes, seconds = (np.array(values, float) for values in zip(*points, strict=True))
    if len(points) < _ENOUGH or np.ptp(sizes) == 0:
        return 0.0, max(0.0, float(seconds.mean()))
    slope, offset = np.polyfit(sizes, seconds, 1)
    if offset < 0:
        return max(0.0, float((sizes * seconds).sum() / (sizes**2).sum())), 0.0
    return (float(slope), float(offset)) if slope > 0 else (0.0, max(0.0, float(seconds.mean())))


_ENOUGH = 3
