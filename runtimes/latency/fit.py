"""The Fit: from profiles of builds to seconds per layer and format, and per change of format."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from convkit.runtimes.latency import table as tables
from convkit.runtimes.latency.builds import Build
from convkit.runtimes.latency.builds import carried as carried_in
from convkit.runtimes.latency.disturbance import spread
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
class _Spent:
    """Seconds of one layer: in its kernel, and behind it, on its result."""

    kernel: float = 0.0
    behind: float = 0.0

    @property
    def both(self) -> float:
        """All of it."""
        return self.kernel + self.behind

    def beyond(self, usual: _Spent) -> _Spent:
        """What it takes more than `usual`."""
        return _Spent(self.kernel - usual.kernel, self.behind - usual.behind)


_Usual = Mapping[str, Mapping[str, _Spent]]
"""Layer -> format -> what it takes where all around it have the same."""
_TRULY = 0.02
"""Relative difference that kernels truly have between builds."""


@dataclass(frozen=True, slots=True)
class _Sorted:
    """A build's time by layers; OUTSIDE: what is done to the network's inputs."""

    formats: Formats
    spent: Mapping[str, _Spent]
    rest: float
    seconds: float
    noise: float = 0.0
    single: bool = False

    def of(self, name: str) -> _Spent:
        """The layer's; nothing where it runs inside another's kernel."""
        return self.spent.get(name, _Spent())


def fit(network: Structure, builds: Sequence[tuple[Build, Profile]], floating: str) -> Fitted:
    """Times from profiled builds, among them first one without and one with all layers in low precision."""
    found = [_sorted(network, build, profile) for build, profile in builds]
    uniform = [one for one in found if one.single or not one.formats or set(one.formats) == set(network.low)]
    usual = {name: _layer(name, uniform, floating) for name in network.layers}
    found = [one if one in uniform else _steadied(network, one, usual, floating) for one in found]
    usual[OUTSIDE] = {floating: next(one.of(OUTSIDE) for one in found if not one.formats)}
    raw: dict[tuple[str, str], list[float]] = {}
    for one in found:
        for key, seconds in _charges(network, one, usual, floating).items():
            raw.setdefault(key, []).append(seconds)
    rest = statistics.median(one.rest for one in found) + usual.pop(OUTSIDE)[floating].both
    layers = {name: {number: spent.both for number, spent in kinds.items()} for name, kinds in usual.items()}
    mapped = min(1 - one.rest / one.seconds for one in found)
    return Fitted(layers, _changes(network, raw, floating), rest, mapped)


def _sorted(network: Structure, build: Build, profile: Profile) -> _Sorted:
    """A layer's first node is its kernel; those behind it change the format of what it made."""
    carried = carried_in(build.path)
    spent: dict[str, _Spent] = {}
    rest = 0.0
    for (_, origins), seconds in profile.nodes.items():
        layer = network.layer(origins, carried)
        if layer is None:
            rest += seconds
        elif layer in spent:
            spent[layer] = _Spent(spent[layer].kernel, spent[layer].behind + seconds)
        else:
            spent[layer] = _Spent(kernel=seconds)
    return _Sorted(build.formats, spent, rest, profile.seconds, profile.noise, build.single)


def _steadied(network: Structure, one: _Sorted, usual: _Usual, floating: str) -> _Sorted:
    """A mixture without the part of its noise that its kernels tell.

    Those that read their own format take there what they take in a uniform build. Where all of them take more by one
    factor, the moment was slow; how much of that is believed depends on how noisy the build was and how they agree.
    """
    mixed = {name for t in network.tensors if tables.changes(t, one.formats, floating) for name in t.readers}
    pairs = [(one.of(name).kernel, usual[name][one.formats.get(name, floating)].kernel) for name in network.layers]
    calm = [pair for name, pair in zip(network.layers, pairs, strict=True) if name not in mixed and min(pair) > 0]
    if len(calm) < _ENOUGH:
        return one
    logs = np.log([here / there for here, there in calm])
    error = spread(np.exp(logs - np.median(logs)).tolist()) / math.sqrt(len(logs))
    trust = one.noise**2 / (one.noise**2 + error**2 + _TRULY**2)
    factor = math.exp(-trust * float(np.median(logs)))
    spent = {name: _Spent(taken.kernel * factor, taken.behind * factor) for name, taken in one.spent.items()}
    return replace(one, spent=spent, rest=one.rest * factor, seconds=one.seconds * factor)


def _layer(name: str, uniform: Sequence[_Sorted], floating: str) -> dict[str, _Spent]:
    """A build of one format alone tells of that; all in low precision may have others beside it."""
    alone = {one.formats[name]: one.of(name) for one in uniform if one.single and name in one.formats}
    return {one.formats.get(name, floating): one.of(name) for one in reversed(uniform)} | alone


def _charges(network: Structure, one: _Sorted, usual: _Usual, floating: str) -> dict[tuple[str, str], float]:
    """What every change of format in a build cost there, by tensor and change."""
    found: dict[tuple[str, str], float] = {}
    for key, seconds in _excess(network, one, usual, floating):
        found[key] = found.get(key, 0.0) + seconds
    return found


def _excess(network: Structure, one: _Sorted, usual: _Usual, floating: str) -> Iterator[tuple[tuple[str, str], float]]:
    """What each layer takes here beyond its usual time, charged to changes of format beside it: in its kernel to those
    of its inputs, behind it to that of its result, or to the other where only that one changes."""
    changed = {tensor: tables.changes(tensor, one.formats, floating) for tensor in network.tensors}
    for name in (*network.layers, OUTSIDE):
        more = one.of(name).beyond(usual[name][one.formats.get(name, floating)])
        made = [(t.name, key) for t in network.tensors if t.producer == name for key in changed[t]]
        read = [(t.name, key) for t in network.tensors if name and name in t.readers for key in changed[t]]
        for seconds, charged in ((more.kernel, read or made), (more.behind, made or read)):
            for key in charged:
                yield key, seconds / len(charged)


def _changes(
    network: Structure, raw: Mapping[tuple[str, str], Sequence[float]], floating: str
) -> dict[str, dict[str, float]]:
    """Seconds of every change there may be: by its tensor's size, and as seen as far as what was seen agrees."""
    kinds: dict[str, dict[str, Sequence[float]]] = {}
    for (name, key), seconds in raw.items():
        kinds.setdefault(key, {})[name] = seconds
    sizes = {tensor.name: tensor.elements for tensor in network.tensors}
    known = {key: _kind(seen, sizes) for key, seen in kinds.items()}
    found: dict[str, dict[str, float]] = {}
    for tensor in network.tensors:
        seen = [key for key, names in kinds.items() if tensor.name in names]
        for key in dict.fromkeys((*_possible(network, tensor, floating), *seen)):
            if key in known:
                found.setdefault(tensor.name, {})[key] = max(0.0, known[key].seconds(tensor))
    return found


@dataclass(frozen=True, slots=True)
class _Kind:
    """One change of format on all tensors: a line over their size, and what single ones were seen to take."""

    slope: float
    offset: float
    seen: Mapping[str, Sequence[float]]
    noise: float
    """Variance of one sight of a tensor."""
    spread: float
    """Variance of tensors around the line, noise among it."""

    def seconds(self, tensor: Tensor) -> float:
        """Between line and sight by how sure the sight is (Efron & Morris, Stein's estimator, JASA 1973)."""
        line, seen = self.offset + self.slope * tensor.elements, self.seen.get(tensor.name)
        if not seen:
            return line
        noise = self.noise / len(seen)
        trust = max(0.0, 1 - noise / self.spread) if self.spread > 0 else 0.0
        return line + trust * (statistics.fmean(seen) - line)


def _kind(seen: Mapping[str, Sequence[float]], sizes: Mapping[str, int]) -> _Kind:
    slope, offset = _line([(sizes[name], statistics.fmean(seconds)) for name, seconds in seen.items()])
    over = {name: [s - offset - slope * sizes[name] for s in seconds] for name, seconds in seen.items()}
    again = [statistics.variance(values) for values in over.values() if len(values) > 1]
    noise = statistics.fmean(again) if again else 0.0
    return _Kind(slope, offset, seen, noise, statistics.fmean(statistics.fmean(v) ** 2 for v in over.values()))


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
