"""The Problem: what every layer costs in every Option open to it. Costs of layers add up; a tensor that is read in
other formats than it is made in pays for the changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from convkit.compress.errors import ConvkitError, nearest
from convkit.compress.option import Option

QUANTITIES = ("loss", "seconds", "bytes", "bops")
SLACK = 1e-9
"""Part of a limit that is no matter."""
Formats = Mapping[str, Option]
"""The Option that each layer runs in."""


def meets(value: float, limit: float) -> bool:
    """Whether `value` is at most `limit`, to nine digits."""
    return value <= limit + SLACK * abs(limit)


@dataclass(frozen=True, slots=True)
class Cost:
    """Expected loss, seconds, bytes, and bit operations (multiply-accumulates times bits of both operands)."""

    loss: float = 0.0
    seconds: float = 0.0
    bytes: float = 0.0
    bops: float = 0.0

    def __getitem__(self, quantity: str) -> float:
        return float(getattr(self, quantity))


@dataclass(frozen=True, slots=True)
class Edge:
    """Seconds that it takes to change the format of what `consumers` read of `producer`.

    A change is paid once, however many want it. `directed` says it for single changes (from, to); any other takes
    `seconds`. An infinite time forbids the change. What no layer makes is in the format `given`, and has no producer.
    """

    producer: str
    consumers: tuple[str, ...]
    seconds: float = 0.0
    directed: Mapping[tuple[str, str], float] = field(default_factory=dict)
    given: str = ""

    def __post_init__(self) -> None:
        stay = [seconds for (before, after), seconds in self.directed.items() if before == after]
        if any(map(math.isnan, (self.seconds, *self.directed.values()))) or not all(map(math.isfinite, stay)):
            ends = f"from {self.producer!r} to {', '.join(map(repr, self.consumers))}"
            raise ValueError(f"a change of format {ends} takes no time that is known")
        if bool(self.given) == bool(self.producer) or not self.consumers:
            raise ValueError("an edge leads from a producer, or a given format, to consumers")

    @property
    def layers(self) -> tuple[str, ...]:
        """Its ends."""
        return (self.producer, *self.consumers) if self.producer else self.consumers

    def change(self, before: str, after: str) -> float:
        """Seconds from activation format `before` to `after`; none where they are the same, unless said."""
        return self.directed.get((before, after), 0.0 if before == after else self.seconds)

    def changes(self, formats: Formats) -> list[tuple[str, str]]:
        """What is paid for where layers run in `formats`: from the format it is made in to each that is wanted."""
        made = self.given or formats[self.producer].activation
        return [(made, wanted) for wanted in dict.fromkeys(formats[layer].activation for layer in self.consumers)]


@dataclass(frozen=True, slots=True)
class Choice:
    """An Option for every layer, and what they cost together, as the problem has it."""

    formats: Formats
    cost: Cost


@dataclass(frozen=True, slots=True)
class Problem:
    """`options` of every layer in order, `edges` between them, and `fixed`, what the rest costs.

    The layers of a group run in one and the same Option. All costs are finite, which the caller sees to.
    """

    options: Mapping[str, Mapping[Option, Cost]]
    edges: tuple[Edge, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    fixed: Cost = Cost()

    def __post_init__(self) -> None:
        for layer in [name for edge in self.edges for name in edge.layers] + self._grouped():
            if layer not in self.options:
                raise ValueError(f"no layer is called {layer!r}")
        for layer, options in self.options.items():
            if not all(math.isfinite(cost[quantity]) for cost in options.values() for quantity in QUANTITIES):
                raise ValueError(f"a cost of {layer!r} is not finite")
        if len(set(self._grouped())) < len(self._grouped()):
            raise ValueError("a layer stands in two groups")
        for group in self.groups:
            self._require_common(group)

    def _grouped(self) -> list[str]:
        return [layer for group in self.groups for layer in group]

    def _require_common(self, group: tuple[str, ...]) -> None:
        if not set.intersection(*(set(self.options[layer]) for layer in group)):
            listed = ", ".join(f"{layer!r} ({_listed(self.options[layer])})" for layer in group)
            raise ConvkitError(f"layers that share one format have none in common: {listed}", hint="pin fewer of them")

    def cost(self, formats: Formats) -> Cost:
        """What the network costs with `formats`; every sum is rounded once, so their order does not matter."""
        parts = [self.fixed, *(options[formats[layer]] for layer, options in self.options.items())]
        parts += [Cost(seconds=seconds) for seconds in self._changes(formats)]
        return Cost(*(math.fsum(part[quantity] for part in parts) for quantity in QUANTITIES))

    def _changes(self, formats: Formats) -> Iterator[float]:
        for edge in self.edges:
            yield from (edge.change(*pair) for pair in edge.changes(formats))

    def choice(self, formats: Formats) -> Choice:
        """`formats`, in the order of the layers, and what they cost."""
        return Choice({layer: formats[layer] for layer in self.options}, self.cost(formats))


def pinned(problem: Problem, formats: Formats) -> Problem:
    """`problem` where the layers in `formats` run in these; raises ConvkitError where they cannot."""
    for layer, option in formats.items():
        if layer not in problem.options:
            hint = nearest(layer, problem.options, "`convkit inspect` lists them")
            raise ConvkitError(f"no layer {layer!r} to pin", hint=hint)
        if option not in problem.options[layer]:
            hint = f"it can run in {_listed(problem.options[layer])}"
            raise ConvkitError(f"layer {layer!r} is pinned to {option}, which it cannot run in", hint=hint)
    options = {
        layer: {formats[layer]: known[formats[layer]]} if layer in formats else known
        for layer, known in problem.options.items()
    }
    return replace(problem, options=options)


def corrected(problem: Problem, costs: Mapping[tuple[str, Option], Cost], fixed: Cost | None = None) -> Problem:
    """`problem` with other costs for some (layer, Option), and for the rest of the network."""
    options = {
        layer: {option: costs.get((layer, option), cost) for option, cost in known.items()}
        for layer, known in problem.options.items()
    }
    return replace(problem, options=options, fixed=problem.fixed if fixed is None else fixed)


def _listed(options: Mapping[Option, Cost]) -> str:
    return ", ".join(map(str, options))
