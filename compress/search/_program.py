"""The Problem as a mixed-integer linear program, for HiGHS.

A binary x[u, o] says that unit u runs in option o. For a link, y[a, b] in [0, 1] says that format a is turned into b;
its margins are the formats of both ends, which makes it whole where x is. Where several units read what one makes, each
has such a flow, and y[a, b], what is paid, is at least each of them; where it would spare time, y[a, b] says instead
that nobody wants it. Costs are counted from the least of their unit or link: that changes no optimum, and what alone
costs more than all may, is barred.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convkit.compress.search._highs import Row, optimum
from convkit.compress.search._units import Link, Unit, reduced
from convkit.compress.search.problem import QUANTITIES, SLACK, Choice, Formats, Problem, meets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

_SCALE = 1e4
"""What limits and the optimum are scaled to, since HiGHS takes less than 1e-6 for nothing."""
_MARGIN = 1e-5
"""Part of a limit that HiGHS is allowed beyond it. It takes a binary for whole that is 1e-6 off, drops it with all near
it where the whole one does not fit, and so may miss the optimum just beneath a limit. What lies in the margin fits, and
is cut off here."""
_TIE = 1e-2
"""What decides among equals is scaled to: a millionth of the optimum."""
_SPREAD, _SURE = 1e-4, 1e-2
"""The optimum is scaled as if it were so much of the dearest column, and again when it is that much less."""


@dataclass(frozen=True, slots=True)
class Program:
    """Columns are the x of all units, the y of all links, and flows of links to several units; `barred` ones are zero.

    `least` is what a quantity takes at least, were all else free; `costs` is what each column adds to that.
    """

    problem: Problem
    units: tuple[Unit, ...]
    least: Mapping[str, float]
    costs: Mapping[str, Vector]
    rows: tuple[Row, ...]
    barred: tuple[int, ...]

    @property
    def binaries(self) -> int:
        return sum(len(unit.costs) for unit in self.units)


def build(problem: Problem, quantities: Collection[str], exclude: Sequence[Formats]) -> Program:
    """The program of `problem` as far as `quantities` matter, without the plans that agree with one in `exclude`."""
    import numpy as np

    units, links = reduced(problem, quantities, len(exclude))
    x = _numbered([(index, option) for index, unit in enumerate(units) for option in unit.costs], 0)
    y = _numbered([(index, pair) for index, link in enumerate(links) for pair in link.seconds], len(x))
    y |= _numbered([key for index, link in enumerate(links) for key in _flows(index, link, units)], len(x) + len(y))
    least, costs = {}, {}
    for number, quantity in enumerate(QUANTITIES):
        blocks = [_from_least([cost[number] for cost in unit.costs.values()]) for unit in units]
        blocks += [_paid(link) for link in links] if quantity == "seconds" else []
        least[quantity] = math.fsum([problem.fixed[quantity], *(floor for floor, _ in blocks)])
        above = np.array([value for _, block in blocks for value in block], dtype=np.float64)
        costs[quantity] = np.concatenate([above, np.zeros(len(x) + len(y) - len(above))])
    rows = [*_one_each(units, x), *_margins(units, links, x, y), *_once(links, y), *_cuts(units, x, exclude)]
    barred = (y[index, pair] for index, link in enumerate(links) for pair, s in link.seconds.items() if math.isinf(s))
    return Program(problem, tuple(units), least, costs, tuple(rows), tuple(barred))


def _numbered(keys: Sequence[Any], start: int) -> dict[Any, int]:
    return {key: number for number, key in enumerate(keys, start)}


def _from_least(values: Sequence[float]) -> tuple[float, list[float]]:
    """The least of `values`, and what each is more than that."""
    return min(values), [value - min(values) for value in values]


def _paid(link: Link) -> tuple[float, list[float]]:
    """Seconds that a link takes at least, and what each column of it adds."""
    known = [seconds for seconds in link.seconds.values() if math.isfinite(seconds)]
    highest = max([0.0, *known])  # what is forbidden is barred, whatever it takes
    finite = [seconds if math.isfinite(seconds) else highest for seconds in link.seconds.values()]
    if len(link.after) == 1:
        return _from_least(finite)
    return math.fsum(seconds for seconds in finite if seconds < 0), [abs(seconds) for seconds in finite]


Columns = Mapping[Any, int]


def _flow(index: int, link: Link, end: int, pair: tuple[str, str]) -> Any:  # noqa: ANN401 - a key of Columns
    """What says that unit `end` reads a link's tensor after this change; of the only reader, the link's own y."""
    return (index, pair) if len(link.after) == 1 else (index, pair, end)


def _flows(index: int, link: Link, units: Sequence[Unit]) -> Iterator[Any]:
    for end in link.after if len(link.after) > 1 else ():
        yield from (_flow(index, link, end, pair) for pair in link.seconds if pair[1] in units[end].formats)


def _once(links: Sequence[Link], y: Columns) -> Iterator[Row]:
    """What several units read is changed for all of them where one wants it."""
    for index, link in enumerate(links):
        for pair, seconds in link.seconds.items() if len(link.after) > 1 else ():
            flows = [y[key] for end in link.after if (key := _flow(index, link, end, pair)) in y]
            if seconds > 0:
                yield from (({y[index, pair]: 1.0, flow: -1.0}, 0.0, math.inf) for flow in flows)
            elif seconds < 0:
                yield dict.fromkeys([y[index, pair], *flows], 1.0), 1.0, math.inf


def _one_each(units: Sequence[Unit], x: Columns) -> Iterator[Row]:
    for index, unit in enumerate(units):
        yield {x[index, option]: 1.0 for option in unit.costs}, 1.0, 1.0


def _margins(units: Sequence[Unit], links: Sequence[Link], x: Columns, y: Columns) -> Iterator[Row]:
    """Each end of a link is in the format that its unit runs in."""
    for index, link in enumerate(links):
        for reader in link.after:
            flows = {pair: y[key] for pair in link.seconds if (key := _flow(index, link, reader, pair)) in y}
            for side, end in enumerate((link.before, reader)):
                for name in units[end].formats:
                    row = {column: 1.0 for pair, column in flows.items() if pair[side] == name}
                    row |= {x[end, option]: -1.0 for option in units[end].costs if option.activation == name}
                    yield row, 0.0, 0.0


def _cuts(units: Sequence[Unit], x: Columns, exclude: Sequence[Formats]) -> Iterator[Row]:
    """Not all that an excluded plan names may be so; one that is out of reach needs no row."""
    for formats in exclude:
        named = [(i, {formats[layer] for layer in unit.layers if layer in formats}) for i, unit in enumerate(units)]
        keys = [(index, option) for index, options in named for option in options]
        if all(key in x for key in keys) and all(len(options) <= 1 for _, options in named):
            yield {x[key]: 1.0 for key in keys}, -math.inf, len(keys) - 1.0


def minimum(program: Program, first: str, second: str, limits: Mapping[str, float]) -> Choice | None:
    """The choice that takes least of `first` within `limits`, of equals the least of `second`; None where none does."""
    found = _minimum(program, first, second, limits)
    if found is None or not _is_least(program, found, first):
        return found
    return _minimum(program, second, None, {**limits, first: found.cost[first]}) or found


def _is_least(program: Program, choice: Choice, quantity: str) -> bool:
    return choice.cost[quantity] - program.least[quantity] <= SLACK * abs(choice.cost[quantity])


def _minimum(program: Program, quantity: str, ties: str | None, limits: Mapping[str, float]) -> Choice | None:
    """The choice that takes least of `quantity`; `ties` counts for less than HiGHS' own gap."""
    spare = {name: limit + SLACK * abs(limit) - program.least[name] for name, limit in limits.items()}
    if any(value < 0 for value in spare.values()):
        return None
    spare = {name: value * (1 + _MARGIN) for name, value in spare.items()}
    upper = _upper(program, spare)
    rows = [*program.rows, *(_row(program.costs[name] * upper, value) for name, value in spare.items() if value > 0)]
    cost, tie = program.costs[quantity], _tie(program, ties, spare, upper)
    order, found = _order(cost * upper, rows, upper), None
    while found is None or not _is_least(program, found, quantity):
        found = _within(program, limits, cost * upper * (_SCALE / order) + tie, rows, upper) or found
        if found is None or (most := found.cost[quantity] - program.least[quantity]) >= _SURE * order:
            return found
        order = most
        upper[cost > order * (1 + SLACK)] = 0.0
    return found


def _tie(program: Program, quantity: str | None, spare: Mapping[str, float], upper: Vector) -> Vector:
    """What `quantity` adds to the objective: all of it together, as far as it may go, no more than _TIE."""
    if quantity is None:
        return 0.0 * upper
    cost = program.costs[quantity] * upper
    reach = min(float(cost.sum()), spare.get(quantity, math.inf))
    return cost * (_TIE / reach) if reach > 0 else cost


def _upper(program: Program, spare: Mapping[str, float]) -> Vector:
    """Bounds of the columns: those that alone take more than `spare` are barred."""
    import numpy as np

    upper = np.ones(len(program.costs["loss"]))
    upper[list(program.barred)] = 0.0
    for name, value in spare.items():
        upper[program.costs[name] > value] = 0.0
    return upper


def _order(cost: Vector, rows: Sequence[Row], upper: Vector) -> float:
    """What the optimum is to be scaled by: its bound, where that is not nothing beside the dearest column."""
    most = float(cost.max(initial=0.0)) or 1.0
    relaxed = optimum(cost * (_SCALE / most), rows, upper, binaries=0)
    return max(most * _SPREAD, 0.0 if relaxed is None else float(cost @ relaxed))


def _row(cost: Vector, most: float) -> Row:
    """At most `most`, scaled."""
    scale = _SCALE / most
    return {int(column): float(cost[column]) * scale for column in cost.nonzero()[0]}, -math.inf, _SCALE


def _within(
    program: Program, limits: Mapping[str, float], objective: Vector, rows: Sequence[Row], upper: Vector
) -> Choice | None:
    """The least that truly meets `limits`: what lies between them and `rows` is cut off."""
    rows, cut = list(rows), set()
    options = [option for unit in program.units for option in unit.costs]
    while (x := optimum(objective, rows, upper, program.binaries)) is not None:
        columns = _chosen(program.units, x)
        formats = {layer: options[c] for unit, c in zip(program.units, columns, strict=True) for layer in unit.layers}
        choice = program.problem.choice(formats)
        if math.isfinite(choice.cost.seconds) and all(
            meets(choice.cost[name], limit) for name, limit in limits.items()
        ):
            return choice
        if columns in cut:
            raise RuntimeError("HiGHS finds again what was cut off")
        cut.add(columns)
        rows.append((dict.fromkeys(columns, 1.0), -math.inf, len(columns) - 1.0))
    return None


def _chosen(units: Sequence[Unit], x: Vector) -> tuple[int, ...]:
    """The column of each unit's Option."""
    starts = itertools.accumulate((len(unit.costs) for unit in units), initial=0)
    return tuple(start + int(x[start : start + len(u.costs)].argmax()) for u, start in zip(units, starts, strict=False))
