"""What the choices of a search cost together: bit operations, or seconds of a latency table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from convkit.compress.errors import ConvkitError
from convkit.compress.option import Option
from convkit.compress.search import budget
from convkit.compress.search.problem import Cost, Problem

NEAR = 0.97
"""Of a limit, where what is chosen is to lie at least."""
_SPARED = "bytes"
"""The quantity that is at hand for what is spared."""


@dataclass(frozen=True, slots=True)
class Costs:
    """By the `quantity` of `problem`, whose layers run in `options` by label and layer; `members` are the layers of
    each decision.
    """

    problem: Problem
    quantity: str
    members: Mapping[str, Sequence[str]]
    options: Mapping[str, Mapping[str, Option]]

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """What each decision is among."""
        return {name: tuple(self.options) for name in self.members}

    def of(self, chosen: Mapping[str, str]) -> float:
        """With the label that is chosen for each decision."""
        formats = {layer: self.options[label][layer] for name, label in chosen.items() for layer in self.members[name]}
        fixed = {name: next(iter(known)) for name, known in self.problem.options.items() if name not in formats}
        return self.problem.cost({**fixed, **formats})[self.quantity]

    def alone(self, name: str, label: str) -> float:
        """The layers of one decision in one label, without changes of format beside them."""
        known = self.problem.options
        return math.fsum(known[layer][self.options[label][layer]][self.quantity] for layer in self.members[name])

    def each(self, chosen: Mapping[str, str]) -> list[list[float]]:
        """[decisions, labels]: with one decision at a time in another label."""
        return [[self.of({**chosen, name: label}) for label in self.options] for name in self.members]

    def ends(self) -> tuple[float, float]:
        """The least of any choice, and the most of those of one label for all."""
        least = budget.nearest(self.problem, self.quantity)
        if least is None:
            raise ConvkitError("no choice of these formats is one that runs, by what was measured", hint="give others")
        dearest = [self.of(dict.fromkeys(self.members, label)) for label in self.options]
        return least.cost[self.quantity], max(dearest)

    def best(self, merits: Mapping[str, Mapping[str, float]], limit: float) -> dict[str, str] | None:
        """The label of each decision such that their merits add up to the most, all keep to the limit, and come as near
        to it as NEAR where any do; None where none keep to it."""
        labels = {
            name: {self.options[label][own[0]]: label for label in self.options} for name, own in self.members.items()
        }
        costs = {name: self._spared(known) for name, known in self.problem.options.items()}
        for name, known in labels.items():
            first, most = self.members[name][0], max(merits[name].values())
            for option, label in known.items():
                costs[first][option] = replace(costs[first][option], loss=most - merits[name][label])
        own = replace(self.problem, options=costs, fixed=replace(self.problem.fixed, bytes=0.0))
        dearest = sum(max(cost[self.quantity] for cost in known.values()) for known in self.problem.options.values())
        most, limits = self.problem.fixed[self.quantity] + dearest, {self.quantity: limit}
        found = budget.solve(own, limits | {_SPARED: most - NEAR * limit}) or budget.solve(own, limits)
        if found is None:
            return None
        return {name: labels[name][found.formats[layers[0]]] for name, layers in self.members.items()}

    def _spared(self, known: Mapping[Option, Cost]) -> dict[Option, Cost]:
        """What each option takes less than the dearest one, where a limit from below can be held against it."""
        most = max(cost[self.quantity] for cost in known.values())
        return {option: replace(cost, bytes=most - cost[self.quantity]) for option, cost in known.items()}


def problem(costs: Mapping[str, Mapping[Option, Cost]], members: Mapping[str, Sequence[str]], fixed: Cost) -> Problem:
    """Layers by their costs in each Option, those of one decision in the same one."""
    return Problem(costs, groups=tuple(tuple(own) for own in members.values() if len(own) > 1), fixed=fixed)
