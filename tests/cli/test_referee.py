"""Which measured network is kept under a budget."""

from pathlib import Path

import pytest

from convkit.cli.contest import ORIGINAL, Candidate
from convkit.cli.referee import Referee
from convkit.compress.budget import parse
from convkit.compress.plan import Plan
from convkit.runtimes.bench.estimate import point
from convkit.runtimes.bench.measure import Result


def result(name: str, ratio: float, sqnr: float) -> Result:
    times, ratios = {"p50": point(ratio * 1e-2)}, {"p50": point(ratio)}
    return Result(name, "null", name, None, times, ratios, 1.0, 1, 1.0, 0.0, 0, 1000, {"sqnr": sqnr})


@pytest.mark.parametrize(
    ("limit", "kept"),
    [
        pytest.param("<=0.7x", "clean", id="the most accurate within it"),
        pytest.param("<=0.62x", "fast", id="only one is within it"),
        pytest.param("<=0.5x", "fast", id="the nearest"),
        pytest.param("<=6.2ms", "fast", id="in milliseconds"),
    ],
)
def test_the_most_accurate_within_the_budget_or_the_nearest(limit: str, kept: str) -> None:
    assert picked(limit, {"fast": (0.61, 18.0), "clean": (0.65, 24.0)}) == kept


def test_of_those_that_are_as_near_the_most_accurate() -> None:
    assert picked("<=0.6x", {"searched": (0.649, 18.5), "learned": (0.650, 23.8)}) == "learned"


def picked(limit: str, networks: dict[str, tuple[float, float]]) -> str:
    results = {ORIGINAL: result(ORIGINAL, 1.0, 200.0)} | {name: result(name, *told) for name, told in networks.items()}
    candidates = [Candidate(name, Plan("ab" * 32, "t"), Path(name)) for name in networks]
    found = Referee((parse("latency", limit),), []).pick(candidates, results)
    assert found is not None
    return found.name
