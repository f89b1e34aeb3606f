"""Tables corrected by measurement: the most likely costs, when each may be wrong by a part of itself, those of one kind
by a factor, and all by another. Bytes are counted; what files have beside them, all that are made of a network have.

That is Gaussian process regression of what was measured less what was predicted (Rasmussen and Williams 2006, 2.2): two
plans err alike as far as they share terms, layers in the same format and changes of format between them. No cost falls
below a part of itself: where it would, it is held there, and the others explain what was measured without it.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from convkit.compress import format as formats
from convkit.compress.option import Option
from convkit.compress.search.problem import Cost, Edge, Formats, Problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

MEASURED = ("loss", "seconds")
"""Quantities that are measured of themselves; bytes and bit operations are counted."""
_OWN, _KIND, _COMMON = 0.3, 0.2, 0.3
"""Relative errors expected of one cost, of all layers in a format, and of everything."""
_CHANGE, _ALL_CHANGES = 0.7, 0.5
"""Those of one change of format, and of all changes: what is fused with what, no profile of one node tells."""
_UNSEEN = 0.3
"""Part of a usual change that one may take which the tables have for nothing."""
NOISE = {"loss": 3e-3, "seconds": 5e-3}
"""Relative error of a measurement at least, and of a sum that leaves out how layers act on each other."""
_LEAST = 0.05
"""Part of itself that a cost is corrected to at least."""
_GAIN = 2.0
"""What a loss below nothing is corrected to at most."""
_FIXED, _CHANGES = "fixed", "changes"

Term = tuple[Hashable, ...]


@dataclass(frozen=True, slots=True)
class _Terms:
    """What sums are made of: `costs` [terms], and the `least` that each may be.

    `errors` is how wrong each may be of itself, `common` [terms, factors] together with its kind and with all others.
    `counts` [plans, terms] says how often plans have them.
    """

    places: Mapping[Term, int]
    costs: Vector
    least: Vector
    errors: Vector
    common: Vector
    counts: Vector


@dataclass(frozen=True, slots=True)
class Sight:
    """A plan, its measured cost, and the relative error of its seconds."""

    formats: Formats
    cost: Cost
    noise: float = 0.0


def corrected_by(problem: Problem, sights: Sequence[Sight], draw: int | None = None) -> Problem:
    """`problem` as what was seen of it has it: the most likely one, or one drawn by the seed `draw` of all that are.

    A draw is as likely as it explains what was seen (Matheron's rule; Wilson et al., Pathwise Conditioning, 2021, 3.1).
    """
    import numpy as np

    found, generator = _sized(problem, sights), None if draw is None else np.random.default_rng(draw)
    for quantity in MEASURED if sights else ():
        terms = _terms(problem, quantity, [sight.formats for sight in sights])
        measured = np.array([sight.cost[quantity] for sight in sights])
        noise = _noise(quantity, sights, measured)
        if generator is not None:
            terms, measured = _drawn(terms, generator), measured - noise * generator.standard_normal(len(noise))
        values = _likely(terms, measured, noise)
        found = _with_values(problem, found, quantity, dict(zip(terms.places, values.tolist(), strict=True)))
    return found


def _sized(problem: Problem, sights: Sequence[Sight]) -> Problem:
    """`problem` with the bytes beside weights that files really have.

    A network all in float is the file that was given, which tells nothing of those that are made of it.
    """
    made = [sight for sight in sights if any(option.form or _is_scaled(option) for option in sight.formats.values())]
    if not made:
        return problem
    more = statistics.fmean(sight.cost.bytes - problem.cost(sight.formats).bytes for sight in made)
    return replace(problem, fixed=replace(problem.fixed, bytes=problem.fixed.bytes + more))


def _is_scaled(option: Option) -> bool:
    return any(formats.load(name).ranged for name in (option.weight, option.activation))


def _noise(quantity: str, sights: Sequence[Sight], measured: Vector) -> Vector:
    """What each measurement may be off by, as a standard deviation."""
    import numpy as np

    own = np.array([sight.noise if quantity == "seconds" else 0.0 for sight in sights])
    size = float(np.abs(measured).max()) or 1.0
    return np.asarray(np.maximum(own, NOISE[quantity]) * np.maximum(np.abs(measured), _LEAST * size), np.float64)


def _drawn(terms: _Terms, generator: np.random.Generator) -> _Terms:
    """`terms` with costs as they may be before anything is seen."""
    own = terms.errors * generator.standard_normal(len(terms.costs))
    return replace(terms, costs=terms.costs + own + terms.common @ generator.standard_normal(terms.common.shape[1]))


def _terms(problem: Problem, quantity: str, plans: Sequence[Formats]) -> _Terms:
    import numpy as np

    known = dict(_known(problem, quantity))
    costs = np.array([cost for cost, _ in known.values()])
    kinds = [kind for _, kind in known.values()]
    changed = np.array([kind == _CHANGES for kind in kinds])
    usual = float(np.median(costs[changed & (costs > 0)])) if (changed & (costs > 0)).any() else 0.0
    errors = np.where(changed, np.maximum(_CHANGE * np.abs(costs), _UNSEEN * usual), _OWN * np.abs(costs))
    if quantity == "loss" and (costs < 0).any():
        # Gains and losses that cancel leave a small cost, which is no surer for that.
        errors = np.where(costs == 0, 0.0, np.maximum(errors, _OWN * np.median(np.abs(costs[costs != 0]))))
    factors = {kind: _ALL_CHANGES if kind == _CHANGES else _KIND for kind in dict.fromkeys(kinds)}
    common = [[factor * (own == kind) for kind, factor in factors.items()] + [_COMMON] for own in kinds]
    places = {term: index for index, term in enumerate(known)}
    counts = np.zeros((len(plans), len(places)))
    for row, plan in zip(counts, plans, strict=True):
        for term in _of(problem, quantity, plan):
            if term in places:
                row[places[term]] += 1
    least = np.minimum(_LEAST * costs, costs * (_GAIN if quantity == "loss" else 1.0))
    return _Terms(places, costs, least, errors, np.array(common) * costs[:, None], counts)


def _known(problem: Problem, quantity: str) -> Iterator[tuple[Term, tuple[float, str]]]:
    """Every term with its cost and its kind."""
    yield (_FIXED,), (problem.fixed[quantity], _FIXED)
    for layer, options in problem.options.items():
        for option, cost in options.items():
            yield _layer_term(problem, quantity, layer, option), (cost[quantity], _kind(quantity, option))
    for index, edge in enumerate(problem.edges if quantity == "seconds" else ()):
        changes = {pair: edge.change(*pair) for pair in _pairs(problem, edge)}
        finite = {pair: seconds for pair, seconds in changes.items() if math.isfinite(seconds)}
        if any(finite.values()):  # else it only forbids
            yield from (((index, pair), (s, _CHANGES)) for pair, s in finite.items() if s or pair[0] != pair[1])


def _of(problem: Problem, quantity: str, plan: Formats) -> Iterator[Term]:
    """The terms of a plan."""
    yield (_FIXED,)
    yield from (_layer_term(problem, quantity, layer, plan[layer]) for layer in problem.options)
    for index, edge in enumerate(problem.edges if quantity == "seconds" else ()):
        yield from ((index, pair) for pair in edge.changes(plan))


def _layer_term(problem: Problem, quantity: str, layer: str, option: Option) -> Term:
    """What takes the same time on the same activations is one kernel, whatever its weight is stored in."""
    if quantity == "seconds":
        return layer, option.kernels, problem.options[layer][option].seconds
    return layer, option


def _kind(quantity: str, option: Option) -> str:
    kind = replace(option, form=option.form.partition(":")[0])
    return kind.kernels if quantity == "seconds" else str(kind)


def _pairs(problem: Problem, edge: Edge) -> Iterator[tuple[str, str]]:
    """The changes of format that there may be on an edge."""

    def names(layers: Sequence[str]) -> list[str]:
        return list(dict.fromkeys(option.activation for layer in layers for option in problem.options[layer]))

    return itertools.product([edge.given] if edge.given else names([edge.producer]), names(edge.consumers))


def _likely(terms: _Terms, measured: Vector, noise: Vector) -> Vector:
    """The most likely costs of all terms, none below its least."""
    import numpy as np

    held = np.zeros(len(terms.costs), bool)
    while True:
        values = np.where(held, terms.least, terms.costs)
        values = values + _error(terms, ~held, measured - terms.counts @ values, noise)
        beneath = ~held & (values < terms.least)
        if not beneath.any():
            return np.asarray(values, np.float64)
        held |= beneath


def _error(terms: _Terms, free: NDArray[np.bool_], off: Vector, noise: Vector) -> Vector:
    """The most likely error of each term where sums are `off` [plans] by what those that are `free` err, and noise."""
    import numpy as np

    own, common = terms.errors**2 * free, terms.common * free[:, None]
    shared = terms.counts @ common
    covariance = (terms.counts * own) @ terms.counts.T + shared @ shared.T
    weights = np.linalg.solve(covariance + np.diag(noise**2), off)
    return np.asarray(own * (terms.counts.T @ weights) + common @ (shared.T @ weights), np.float64)


def _with_values(tables: Problem, found: Problem, quantity: str, values: Mapping[Term, float]) -> Problem:
    """`found` with one quantity as `values` have it."""

    def changed(cost: Cost, term: Term) -> Cost:
        return replace(cost, **{quantity: values[term]})

    options = {
        layer: {option: changed(cost, _layer_term(tables, quantity, layer, option)) for option, cost in known.items()}
        for layer, known in found.options.items()
    }
    edges = tuple(_edges(tables, values)) if quantity == "seconds" else found.edges
    return replace(found, options=options, edges=edges, fixed=changed(found.fixed, (_FIXED,)))


def _edges(tables: Problem, values: Mapping[Term, float]) -> Iterator[Edge]:
    for index, edge in enumerate(tables.edges):
        known = {pair: values[index, pair] for pair in _pairs(tables, edge) if (index, pair) in values}
        yield replace(edge, directed={**edge.directed, **known})
