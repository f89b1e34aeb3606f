"""The Problem made small: layers that share an Option as one unit, edges between units, no option that never pays."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from convkit.compress.option import Option
from convkit.compress.search.problem import QUANTITIES, Edge, Problem

Costs = tuple[float, ...]
"""One number a quantity, in their order."""
_SECONDS = QUANTITIES.index("seconds")


@dataclass(frozen=True, slots=True)
class Unit:
    """Layers that share one Option, and what each costs them together."""

    layers: tuple[str, ...]
    costs: Mapping[Option, Costs]

    @property
    def formats(self) -> list[str]:
        """Activation formats, in the order they first come."""
        return list(dict.fromkeys(option.activation for option in self.costs))


@dataclass(frozen=True, slots=True)
class Link:
    """Seconds of a change from an activation format of one unit to one that any of others reads, by their places."""

    before: int
    after: tuple[int, ...]
    seconds: Mapping[tuple[str, str], float]


def reduced(problem: Problem, quantities: Collection[str], spare: int) -> tuple[list[Unit], list[Link]]:
    """Units and links of `problem` as far as `quantities` matter.

    An option goes when others that cost no more of anything, and change formats as it does, are more than `spare`:
    where `spare` plans are excluded, one of those is still as good.
    """
    edges = problem.edges if "seconds" in quantities else tuple(_forbidding(edge) for edge in problem.edges)
    units = [*_merged(problem), *_given(edges)]
    place = {key: index for index, unit in enumerate(units) for key in _keys(unit)}
    between, inner = _sorted(edges, place)
    units = [_with_inner(unit, inner[index]) if index in inner else unit for index, unit in enumerate(units)]
    linked = {ends: found for ends, found in between.items() if _matters(_link(units, ends, found))}
    touched = {index for before, after in linked for index in (before, *after)}
    keys = [index for index, quantity in enumerate(QUANTITIES) if quantity in quantities]
    units = [_pruned(unit, keys, spare, by_format=index in touched) for index, unit in enumerate(units)]
    return units, [_link(units, ends, found) for ends, found in linked.items()]


Ends = tuple[int, tuple[int, ...]]
"""The place of the unit that makes a tensor, and of those that read it."""


def _keys(unit: Unit) -> list[tuple[str, str]]:
    """By what edges know `unit`: its layers, or the format it stands for."""
    return [(layer, "") for layer in unit.layers] or [("", name) for name in unit.formats]


def _sorted(
    edges: Sequence[Edge], place: Mapping[tuple[str, str], int]
) -> tuple[dict[Ends, list[Edge]], dict[int, list[Edge]]]:
    """Edges between units, by their ends, and those within one. One that is both pays there for staying as it is."""
    between: dict[Ends, list[Edge]] = defaultdict(list)
    inner: dict[int, list[Edge]] = defaultdict(list)
    for edge in edges:
        before, ends = place[edge.producer, edge.given], {place[layer, ""] for layer in edge.consumers}
        after = tuple(sorted(ends - {before}))
        if before in ends:
            inner[before].append(edge)
            edge = replace(edge, directed={(a, b): s for (a, b), s in edge.directed.items() if a != b})  # noqa: PLW2901
        if after:
            between[before, after].append(edge)
    return between, inner


def _given(edges: Sequence[Edge]) -> list[Unit]:
    """A unit without layers for each format that something has which no layer makes."""
    nothing = (0.0,) * len(QUANTITIES)
    return [Unit((), {Option(n, n): nothing}) for n in dict.fromkeys(edge.given for edge in edges if edge.given)]


def _forbidding(edge: Edge) -> Edge:
    """`edge` where time does not matter: a change is forbidden, or free."""

    def only(seconds: float) -> float:
        return seconds if math.isinf(seconds) else 0.0

    return replace(
        edge, seconds=only(edge.seconds), directed={key: only(value) for key, value in edge.directed.items()}
    )


def _merged(problem: Problem) -> list[Unit]:
    group = {layer: layers for layers in problem.groups for layer in layers}
    units = []
    for layer in problem.options:
        layers = group.get(layer, (layer,))
        if layer == layers[0]:
            units.append(Unit(layers, _summed(problem, layers)))
    return units


def _summed(problem: Problem, layers: Sequence[str]) -> dict[Option, Costs]:
    """Costs of the options that all layers have."""
    every = [problem.options[layer] for layer in layers]
    common = [option for option in every[0] if all(option in options for options in every)]
    return {o: tuple(math.fsum(options[o][q] for options in every) for q in QUANTITIES) for o in common}


def _with_inner(unit: Unit, edges: Sequence[Edge]) -> Unit:
    """`unit` with what its own layers pay between each other, though they never change formats."""
    costs = {}
    for option, known in unit.costs.items():
        more = math.fsum(edge.change(option.activation, option.activation) for edge in edges)
        costs[option] = tuple(cost + more * (index == _SECONDS) for index, cost in enumerate(known))
    return replace(unit, costs=costs)


def _link(units: Sequence[Unit], ends: Ends, edges: Sequence[Edge]) -> Link:
    made, wanted = units[ends[0]].formats, dict.fromkeys(name for index in ends[1] for name in units[index].formats)
    return Link(*ends, {(a, b): math.fsum(edge.change(a, b) for edge in edges) for a in made for b in wanted})


def _matters(link: Link) -> bool:
    return any(link.seconds.values())


def _pruned(unit: Unit, keys: Sequence[int], spare: int, *, by_format: bool) -> Unit:
    """`unit` without what more than `spare` others do as well; of equals, the first stays."""
    order = {option: index for index, option in enumerate(unit.costs)}

    def beats(one: Option, other: Option) -> bool:
        if by_format and one.activation != other.activation:
            return False
        ours, theirs = ([unit.costs[option][key] for key in keys] for option in (one, other))
        worse = any(our > their for our, their in zip(ours, theirs, strict=True))
        return not worse and (ours != theirs or order[one] < order[other])

    kept = [option for option in order if sum(beats(other, option) for other in order) <= spare]
    return replace(unit, costs={option: unit.costs[option] for option in kept})
