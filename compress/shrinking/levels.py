"""How narrow a network may be: the widths that lose least for the time they save, from its own down to the least.

Channels go where the loss that they are worth, over the seconds that layers take without them, is least: a greedy way
through the widths, a step of channels at a time. What layers take is told by those who measured (`Times`), as a
function of the part of their products that is left.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from convkit.compress import graph as graphs
from convkit.compress.shrinking.classes import Along
from convkit.compress.shrinking.coupling import Coupling, Family, is_dense

Times = Mapping[str, Sequence[tuple[float, float]]]
"""By layer or operator: seconds at parts of its products, (part, seconds), parts rising; beyond them in proportion."""


Again = Callable[[frozenset[int]], Mapping[int, float]]
"""What classes that are left are worth in the network less those that are gone, its layers fitted to that."""
_FRESH = 0.9
"""Of the time at which channels were valued last: what one is worth hangs on those that went before it."""


@dataclass(frozen=True, slots=True)
class Level:
    """A network less the classes `gone`, and what it is expected to lose and to take."""

    gone: frozenset[int]
    loss: float
    seconds: float


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer or operator: the part of what it reads, and of what it makes, that one class of each family is."""

    name: str
    read: Mapping[int, float]
    made: Mapping[int, float]
    squared: bool
    """Whether every output reads every input: its products are the product of both parts."""

    def part(self, out: Sequence[int]) -> float:
        """What is left of its products with `out` classes gone of each family."""
        read, made = (1 - sum(out[f] * each for f, each in side.items()) for side in (self.read, self.made))
        return read * made if self.squared else made


@dataclass(slots=True)
class _Way:
    """Where the greedy way stands: classes gone of each family, the least worthy first."""

    families: Sequence[Family]
    order: Sequence[Sequence[int]]
    worth: Mapping[int, float]
    layers: Sequence[_Layer]
    times: Times
    step: int
    out: list[int] = field(default_factory=list)
    by_family: list[list[_Layer]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.out = [0] * len(self.families)
        self.by_family = [[] for _ in self.families]
        for layer in self.layers:
            for f in {*layer.read, *layer.made}:
                self.by_family[f].append(layer)

    def next_out(self, f: int) -> int | None:
        """Classes gone of the family after one more step; None where it is as narrow as may be."""
        size = max(self.families[f].channels)
        left = len(self.order[f]) - self.out[f]
        each = max(1, self.step // size)
        keep = (left - 1) // each * each
        if not keep and len(self.order[f]) < each:
            keep = left - 1
        return len(self.order[f]) - keep if keep else None

    def saves(self, f: int, out: int) -> float:
        """Seconds less with `out` classes gone of the family."""
        after = list(self.out)
        after[f] = out
        return sum(
            seconds(self.times, layer.name, layer.part(self.out)) - seconds(self.times, layer.name, layer.part(after))
            for layer in self.by_family[f]
        )

    def loses(self, f: int, out: int) -> float:
        """Loss more with `out` classes gone of the family."""
        return sum(max(0.0, self.worth[root]) for root in self.order[f][self.out[f] : out])

    def level(self, loss: float, whole: float) -> Level:
        gone = frozenset(root for f, out in enumerate(self.out) for root in self.order[f][:out])
        saved = sum(
            seconds(self.times, one.name, 1.0) - seconds(self.times, one.name, one.part(self.out))
            for one in self.layers
        )
        return Level(gone, loss, whole - saved)


def seconds(times: Times, name: str, part: float) -> float:
    """What the layer takes with `part` of its products; nothing where nobody measured it."""
    known = times.get(name)
    if not known:
        return 0.0
    parts = [own for own, _ in known]
    at = bisect.bisect_left(parts, part)
    if at == 0:
        return known[0][1] * part / parts[0] if parts[0] else known[0][1]
    if at == len(known):
        return known[-1][1] * part / parts[-1]
    (low, before), (high, after) = known[at - 1], known[at]
    return before + (after - before) * (part - low) / (high - low)


def levels(
    graph: fx.GraphModule,
    coupled: Coupling,
    worth: Mapping[int, float],
    times: Times,
    whole: float,
    step: int = 8,
    again: Again | None = None,
) -> Iterator[Level]:
    """Ever narrower networks, the given one first, which takes `whole` seconds; widths are multiples of `step` where
    there are as many channels. `coupled` is of `graph`. Channels are valued `again` on the way; which of a family goes
    first is told by their `worth` in the network as it was.
    """
    order = [sorted(family.classes, key=lambda root: (worth[root], root)) for family in coupled.families]
    way = _Way(coupled.families, order, worth, list(_layers(graph, coupled)), times, step)
    total, valued = 0.0, whole
    yield way.level(total, whole)
    price = dict(_prices(way, range(len(order))))
    while price:
        f = min(price, key=lambda one: (price[one][0], one))
        out = price[f][1]
        total += way.loses(f, out)
        way.out[f] = out
        level = way.level(total, whole)
        yield level
        near = {other for layer in way.by_family[f] for other in (*layer.read, *layer.made)} | {f}
        if again is not None and level.seconds <= _FRESH * valued:
            valued, way.worth, near = level.seconds, again(level.gone), set(range(len(order)))
        for other in near:
            price.pop(other, None)
        price |= dict(_prices(way, sorted(near)))


def _prices(way: _Way, families: Iterable[int]) -> Iterator[tuple[int, tuple[float, int]]]:
    """Of each family's next step, where it has one."""
    for f in families:
        out = way.next_out(f)
        if out is not None:
            yield f, _price(way, f, out)


def _price(way: _Way, f: int, out: int) -> tuple[float, int]:
    """Loss for each second saved; what saves nothing, or costs time, comes last."""
    saved = way.saves(f, out)
    return (way.loses(f, out) / saved if saved > 0 else float("inf"), out)


def renamed(
    coupled: Coupling, gone: frozenset[int], narrow: Coupling, fresh: Mapping[int, float], known: Mapping[int, float]
) -> dict[int, float]:
    """`fresh`, the worth of classes of the network `narrow`, by the classes of `coupled` that are left without those
    `gone`; as it is `known` where a family is not the same one any more.
    """
    own = {family.name: family.classes for family in narrow.families}
    found = dict(known)
    for family in coupled.families:
        left = [root for root in family.classes if root not in gone]
        classes = own.get(family.name, ())
        if len(classes) == len(left):
            found |= {root: fresh[one] for root, one in zip(left, classes, strict=True)}
    return found


def uniform(coupled: Coupling, worth: Mapping[int, float], share: float, step: int = 8) -> frozenset[int]:
    """The classes gone where every family keeps about `share` of its channels, those that are worth most."""
    gone: set[int] = set()
    for family in coupled.families:
        size = max(family.channels)
        count = len(family.classes)
        each = max(1, step // size)
        each = 1 if count < each else each
        keep = min(count, max(each, round(share * count / each) * each))
        gone |= set(sorted(family.classes, key=lambda root: (worth[root], root))[: count - keep])
    return frozenset(gone)


def parts(graph: fx.GraphModule, coupled: Coupling, gone: frozenset[int]) -> dict[str, float]:
    """What is left of the products of every layer and operator without the classes `gone`."""
    out = torch.tensor(sorted(gone), dtype=torch.int64)
    found: dict[str, float] = {}
    for node in graphs.computes(graph):
        read, made = coupled.reads.get(node), coupled.known.get(node)
        sides = [_left(one, out) for one in (read, made) if isinstance(one, Along)]
        if sides:
            squared = isinstance(made, Along) and read is not None and is_dense(node)
            found[graphs.key(node)] = sides[0] * sides[-1] if squared else sides[-1]
    return found


def _left(along: Along, out: Tensor) -> float:
    return 1 - float(torch.isin(along.labels, out).double().mean())


def _layers(graph: fx.GraphModule, coupled: Coupling) -> Iterator[_Layer]:
    owner = {root: f for f, family in enumerate(coupled.families) for root in family.classes}
    sizes = [len(family.classes) for family in coupled.families]
    for node in graphs.computes(graph):
        read, made = coupled.reads.get(node), coupled.known.get(node)
        made = made if isinstance(made, Along) else None
        if read is None and made is None:
            continue
        squared = read is not None and is_dense(node)
        sides = _each(read, owner, sizes) if squared and read is not None else {}
        own = {} if made is None else _each(made, owner, sizes)
        yield _Layer(graphs.key(node), sides, own, squared=squared)


def _each(along: Along, owner: Mapping[int, int], sizes: Sequence[int]) -> dict[int, float]:
    """The part of the channels that a class of each family is, on average."""
    counts = Counter(owner[label] for label in along.labels.tolist() if label in owner)
    return {f: count / len(along.labels) / sizes[f] for f, count in counts.items()}


def never_empty(coupled: Coupling, gone: frozenset[int], worth: Mapping[int, float]) -> frozenset[int]:
    """`gone` less what must stay for every tensor to keep a channel: its worthiest."""
    left = set(gone)
    for along in (*coupled.known.values(), *coupled.reads.values()):
        for one in along if isinstance(along, tuple) else (along,):
            labels = [] if one is None else one.labels.tolist()
            if labels and left.issuperset(labels):
                left.discard(max(labels, key=lambda root: (worth.get(root, 0.0), root)))
    return frozenset(left)
