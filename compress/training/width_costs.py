"""What formats and widths cost together, in bit operations: a layer's are those of its format, times what is left of
its products, which hangs on the widths of what it reads and of what it makes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from convkit.compress.search._highs import Row, optimum
from convkit.compress.search.problem import meets
from convkit.compress.training.costs import NEAR

if TYPE_CHECKING:
    from convkit.compress.option import Option
    from convkit.compress.training.widths import Widths

_MARGIN = 2e-6
"""Of a limit, which HiGHS may pass by half of that."""
ONLY = ""
"""The label of a layer whose format is no choice."""


class WidthCosts:
    """As Costs, with the decisions of `widths` beside those of formats: `bops` of whole layers by label, which is `""`
    for those that are in the same format always. `formats`: the layers of each decision, `options` of each label.
    """

    quantity = "bops"

    def __init__(
        self,
        bops: Mapping[str, Mapping[str, float]],
        formats: Mapping[str, Sequence[str]],
        options: Mapping[str, Mapping[str, Option]],
        widths: Widths,
    ) -> None:
        self.options, self._bops, self._parts, self._widths = options, bops, widths.parts(), tuple(widths.sizes)
        readers = {
            name: [layer for layer, part in self._parts.items() if name in part.families] for name in widths.sizes
        }
        self.members: Mapping[str, Sequence[str]] = {**formats, **readers}
        self.labels: dict[str, tuple[str, ...]] = {name: tuple(options) for name in formats}
        self.labels |= {name: tuple(map(str, sizes)) for name, sizes in widths.sizes.items()}
        self._formats = {layer: name for name, layers in formats.items() for layer in layers}

    def of(self, chosen: Mapping[str, str]) -> float:
        """With the label that is chosen for each decision."""
        return math.fsum(self._layer(layer, chosen) for layer in self._bops)

    def _layer(self, layer: str, chosen: Mapping[str, str]) -> float:
        part, name = self._parts.get(layer), self._formats.get(layer)
        whole = self._bops[layer][ONLY if name is None else chosen[name]]
        if part is None:
            return whole
        return whole * part.left(self._places(part.families, chosen))

    def each(self, chosen: Mapping[str, str]) -> list[list[float]]:
        """[decisions, labels]: with one decision at a time in another label; those that have fewer cost what is chosen
        in the rest."""
        now = {layer: self._layer(layer, chosen) for layer in self._bops}
        whole, most = math.fsum(now.values()), max(map(len, self.labels.values()))
        found = []
        for name, labels in self.labels.items():
            row = []
            for label in labels:
                other = {**chosen, name: label}
                row.append(whole + math.fsum(self._layer(one, other) - now[one] for one in self.members[name]))
            found.append(row + [whole] * (most - len(row)))
        return found

    def ends(self) -> tuple[float, float]:
        """The least of any choice, and the most of those of one format for all."""
        wide = {name: labels[0] for name, labels in self.labels.items()}
        return self.of(self._cheapest()), max(self.of(self._all(label, wide)) for label in self.options)

    def _cheapest(self) -> dict[str, str]:
        """The narrowest widths, and the format of fewest bit operations."""
        narrow = {name: labels[-1] for name, labels in self.labels.items()}
        every = [self._all(label, narrow) for label in self.options]
        return min(every, key=self.of)

    def _all(self, label: str, widths: Mapping[str, str]) -> dict[str, str]:
        return {name: widths[name] if name in self._widths else label for name in self.labels}

    def best(self, merits: Mapping[str, Mapping[str, float]], limit: float) -> dict[str, str] | None:
        """The label of each decision such that their merits add up to the most, all keep to the limit, and come as near
        to it as NEAR where any do; None where none keep to it."""
        for least in (NEAR * limit, 0.0):
            found = self._found(merits, least, limit)
            if found is not None and meets(self.of(found), limit):
                return found
        cheapest = self._cheapest()  # which may be the only one, in the program's margin
        return cheapest if meets(self.of(cheapest), limit) else None

    def _found(self, merits: Mapping[str, Mapping[str, float]], least: float, most: float) -> dict[str, str] | None:
        """By an integer program: x says which label a decision has; y, for each term of what layers cost that hangs on
        several, which of their combinations, whose margins are their x: whole where these are."""
        import numpy as np

        keys = [(name, label) for name, labels in self.labels.items() for label in labels]
        x = {key: at for at, key in enumerate(keys)}
        objective = [max(merits[name].values()) - merits[name][label] for name, label in keys]
        rows: list[Row] = [
            ({x[name, label]: 1.0 for label in labels}, 1.0, 1.0) for name, labels in self.labels.items()
        ]
        taken: dict[int, float] = {}
        column, fixed = len(x), 0.0
        for names, cost in (term for layer in self._bops for term in self._terms(layer)):
            sets = list(itertools.product(*(self.labels[name] for name in names)))
            costs = [cost(dict(zip(names, one, strict=True))) / most for one in sets]
            if not names:
                fixed += costs[0]
                continue
            own = [x[names[0], one[0]] for one in sets] if len(names) == 1 else [*range(column, column + len(sets))]
            column = max(column, own[-1] + 1)
            for at, one in zip(own, costs, strict=True):
                taken[at] = taken.get(at, 0.0) + one
            rows += self._margins(names, sets, own, x) if len(names) > 1 else []
        rows.append((taken, least / most - fixed, 1 - _MARGIN - fixed))
        solved = optimum(np.array(objective + [0.0] * (column - len(x))), rows, np.ones(column), len(x))
        if solved is None:
            return None
        return {
            name: max(labels, key=lambda label, name=name: solved[x[name, label]])  # type: ignore[misc]
            for name, labels in self.labels.items()
        }

    def _terms(self, layer: str) -> Iterator[tuple[list[str], Callable[[Mapping[str, str]], float]]]:
        """What a layer costs, as a sum of what hangs on its format, the width of what it makes, and that of one family
        which it reads: it may read many."""
        part, name = self._parts.get(layer), self._formats.get(layer)
        format_ = [] if name is None else [name]

        def whole(chosen: Mapping[str, str]) -> float:
            return self._bops[layer][ONLY if name is None else chosen[name]]

        if part is None:
            yield format_, whole
            return
        names = [*format_, *part.gone_made]

        def made(chosen: Mapping[str, str]) -> float:
            return whole(chosen) * part.left_made(self._places(part.gone_made, chosen))

        yield names, made
        for read, gone in part.gone_read.items():

            def less(chosen: Mapping[str, str], read: str = read, gone: Sequence[int] = gone) -> float:
                return -made(chosen) * gone[self.labels[read].index(chosen[read])] / part.read

            yield [*names, *([] if read in names else [read])], less

    def _places(self, names: Iterable[str], chosen: Mapping[str, str]) -> dict[str, int]:
        return {name: self.labels[name].index(chosen[name]) for name in names}

    def _margins(
        self, names: Sequence[str], sets: Sequence[Sequence[str]], own: Sequence[int], x: Mapping[tuple[str, str], int]
    ) -> Iterator[Row]:
        for place, name in enumerate(names):
            for label in self.labels[name]:
                row = {at: 1.0 for at, one in zip(own, sets, strict=True) if one[place] == label}
                yield {**row, x[name, label]: -1.0}, 0.0, 0.0
