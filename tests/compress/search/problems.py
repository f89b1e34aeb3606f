"""Small problems of all kinds: pins, groups, changes of format that cost, pay or are forbidden."""

import math
from dataclasses import replace

from hypothesis import strategies as st

from convkit.compress.option import FLOAT, Option
from convkit.compress.search.problem import QUANTITIES, Cost, Edge, Problem

NAMES = "abcdef"
CHOICES = (FLOAT, Option("int8", "uint8"), Option("int4", "uint8"), Option("int8", "bf16"))
WHOLE = st.integers(0, 12).map(float)
SMALL = st.integers(0, 1000).map(lambda value: value * 1e-6)
"""As seconds and losses are; their sums are not exact, but never almost the same."""


@st.composite
def costs(draw: st.DrawFn, number: st.SearchStrategy[float]) -> Cost:
    return Cost(*(draw(number) for _ in QUANTITIES))


@st.composite
def problems_of(draw: st.DrawFn, number: st.SearchStrategy[float] = WHOLE, unit: float = 1.0) -> Problem:
    """`number`s for costs, and changes of format, for one reader or several, that take some `unit`s of seconds."""
    layers = NAMES[: draw(st.integers(1, 6))]
    options = st.lists(st.sampled_from(CHOICES), min_size=1, max_size=3, unique=True)
    grouped = draw(st.booleans()) and len(layers) > 2
    shared = draw(options)
    table = {
        layer: {option: draw(costs(number)) for option in (shared if grouped and layer in "bd" else draw(options))}
        for layer in layers
    }
    ends = st.lists(st.sampled_from(layers), min_size=1, max_size=4, unique=True).flatmap(_ends)
    pairs = draw(st.lists(ends, max_size=6))
    groups = (tuple(layer for layer in "bd" if layer in layers),) if grouped else ()
    return Problem(table, tuple(draw(edges(*pair, unit)) for pair in pairs), groups, draw(costs(number)))


def _ends(layers: list[str]) -> st.SearchStrategy[tuple[str, tuple[str, ...]]]:
    """A producer or none, and consumers; it may read what it makes itself."""
    first, *others = layers
    readers = [tuple(others), tuple(layers)] if others else [tuple(layers)]
    return st.tuples(st.sampled_from(["", first]), st.sampled_from(readers))


@st.composite
def edges(draw: st.DrawFn, producer: str, consumers: tuple[str, ...], unit: float) -> Edge:
    change = st.integers(-2, 6).map(lambda units: units * unit) | st.just(math.inf)
    names = st.sampled_from(["fp32", "uint8", "bf16"])
    directed = draw(
        st.dictionaries(st.tuples(names, names).filter(lambda pair: pair[0] != pair[1]), change, max_size=3)
    )
    stays = names.map(lambda name: (name, name))
    directed |= draw(st.dictionaries(stays, st.integers(-2, 2).map(lambda units: units * unit), max_size=1))
    given = "" if producer else draw(names)
    return Edge(producer, consumers, draw(change.filter(lambda seconds: seconds >= 0)), directed, given)


def scaled(problem: Problem, quantity: str, factor: float) -> Problem:
    """`problem` with all of one quantity multiplied by `factor`."""

    def times(cost: Cost) -> Cost:
        return Cost(*(cost[name] * (factor if name == quantity else 1.0) for name in QUANTITIES))

    options = {
        layer: {option: times(cost) for option, cost in known.items()} for layer, known in problem.options.items()
    }
    edges = problem.edges
    if quantity == "seconds":
        edges = tuple(
            replace(edge, seconds=edge.seconds * factor, directed={k: v * factor for k, v in edge.directed.items()})
            for edge in edges
        )
    return replace(problem, options=options, edges=edges, fixed=times(problem.fixed))
