"""Tables corrected by measurement: the most likely costs when each is wrong by a part of itself, and all by one factor.

That is Gaussian process regression of what was measured less what was predicted (Rasmussen and Williams 2006, 2.2): two
plans err alike as far as their layers run in the same options.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from convkit.compress.option import Option
from convkit.compress.search.problem import Cost, Formats, Problem, corrected, scaled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

MEASURED = ("loss", "seconds")
"""Quantities that are measured; bytes and bit operations are counted."""
_OWN, _COMMON, _NOISE = 0.3, 0.5, 1e-3
"""Relative errors expected: of one cost, of all together, and of a measurement."""
_LEAST = 0.05
"""Part of itself that a cost is corrected to at least."""


def corrected_by(problem: Problem, plans: Sequence[Formats], costs: Sequence[Cost]) -> Problem:
    """`problem` as the measured `costs` of `plans` have it."""
    found = problem
    for quantity in MEASURED if plans else ():
        found = _corrected(problem, found, quantity, plans, [cost[quantity] for cost in costs])
    return found


def _corrected(
    tables: Problem, problem: Problem, quantity: str, plans: Sequence[Formats], measured: Sequence[float]
) -> Problem:
    """`problem` with the costs of one quantity as `tables` have them, corrected."""
    import numpy as np

    predicted = np.array([tables.cost(plan)[quantity] for plan in plans])
    weights = _weights(tables, quantity, plans, predicted, np.array(measured))
    factor = max(_LEAST, 1 + _COMMON**2 * float(weights @ predicted))

    def replaced(known: Cost, table: float, weight: float) -> Cost:
        value = max(_LEAST * table, factor * table + (_OWN * table) ** 2 * weight)
        return Cost(
            **{name: value if name == quantity else known[name] for name in ("loss", "seconds", "bytes", "bops")}
        )

    def shared(layer: str, option: Option) -> float:
        return float(sum(weight for weight, plan in zip(weights, plans, strict=True) if plan[layer] == option))

    costs = {
        (layer, option): replaced(cost, tables.options[layer][option][quantity], shared(layer, option))
        for layer, options in problem.options.items()
        for option, cost in options.items()
    }
    fixed = replaced(problem.fixed, tables.fixed[quantity], float(weights.sum()))
    return corrected(scaled(problem, quantity, factor), costs, fixed)


def _weights(problem: Problem, quantity: str, plans: Sequence[Formats], predicted: Vector, measured: Vector) -> Vector:
    """(K + noise)⁻¹ · (measured - predicted), K [plans, plans] the covariance of the errors."""
    import numpy as np

    def alike(one: Formats, other: Formats) -> float:
        same = (
            options[one[layer]][quantity] for layer, options in problem.options.items() if one[layer] == other[layer]
        )
        return sum(cost**2 for cost in same) + problem.fixed[quantity] ** 2

    size = max(float(np.abs(measured).max()), float(np.abs(predicted).max())) or 1.0
    own = np.array([[alike(one, other) for other in plans] for one in plans]) / size**2
    covariance = _OWN**2 * own + _COMMON**2 * np.outer(predicted, predicted) / size**2
    noise = (_NOISE * np.maximum(np.abs(measured) / size, _NOISE)) ** 2
    return np.asarray(np.linalg.solve(covariance + np.diag(noise), (measured - predicted) / size) / size, np.float64)
