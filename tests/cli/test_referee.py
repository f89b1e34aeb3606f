"""Which measured network is kept under a budget."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from convkit.cli.contest import ORIGINAL, Candidate
from convkit.cli.referee import Referee
from convkit.compress.budget import parse
from convkit.compress.plan import LayerPlan, Plan
from convkit.compress.search.criterion import CROSS_ENTROPY, DISTANCE
from convkit.compress.search.problem import Cost
from convkit.runtimes.bench.estimate import point
from convkit.runtimes.bench.measure import Result

LOW = LayerPlan("int8", "max", "uint8")


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


def test_where_the_original_is_nearer_it_is_kept() -> None:
    """What quantizing adds to a file is more than it saves of few weights."""
    small = replace(result(ORIGINAL, 1.0, 200.0), size=234)
    made = {"searched": replace(result("searched", 0.9, 30.0), size=1039), ORIGINAL: small}
    candidate = Candidate("searched", Plan("", ""), Path("searched"))
    for limit, kept in (("<=0.99x", None), ("<=200B", None), ("<=2kB", candidate)):
        assert Referee((parse("size", limit),), []).pick([candidate], made) is kept


def test_of_those_that_are_as_near_the_most_accurate() -> None:
    assert picked("<=0.6x", {"searched": (0.649, 18.5), "learned": (0.650, 23.8)}) == "learned"


def test_beyond_the_budget_networks_that_run_the_same_kernels_are_as_near() -> None:
    """One more measurement of the same program took longer: what it computes better is kept."""
    low = {"conv": LOW}
    plans = {
        "searched": Plan("ab" * 32, "t", ("bias_correction",), low),
        "learned": Plan("ab" * 32, "t", ("learned_round",), low),
        "other": Plan("ab" * 32, "t", (), low | {"last": LOW}),
        "with knobs": Plan("ab" * 32, "t", (), low, engine={"layout": "blocked"}),
    }
    told = {"searched": (0.65, 18.5), "learned": (0.69, 23.8), "other": (0.69, 30.0), "with knobs": (0.69, 40.0)}
    assert picked("<=0.6x", told, plans) == "learned"
    assert picked("<=0.66x", told, plans) == "searched"


def test_by_labels_the_most_accurate_is_what_they_say() -> None:
    def told(name: str, sqnr: float, entropy: float) -> Result:
        found = result(name, 0.6, sqnr)
        return replace(found, metrics={**found.metrics, "cross_entropy": entropy})

    results = {
        name: told(name, *metrics)
        for name, metrics in {ORIGINAL: (200, 0.5), "near": (30, 0.7), "right": (10, 0.4)}.items()
    }
    candidates = [Candidate(name, Plan("ab" * 32, "t"), Path(name)) for name in ("near", "right")]
    budget = (parse("latency", "<=0.7x"),)
    kept = [Referee(budget, [], kind).pick(candidates, results) for kind in (DISTANCE, CROSS_ENTROPY)]
    assert [one and one.name for one in kept] == ["near", "right"]


def picked(limit: str, networks: dict[str, tuple[float, float]], plans: dict[str, Plan] | None = None) -> str:
    known = plans or {name: Plan("ab" * 32, "t", layers={name: LOW}) for name in networks}
    results = {ORIGINAL: result(ORIGINAL, 1.0, 200.0)} | {name: result(name, *told) for name, told in networks.items()}
    candidates = [Candidate(name, known[name], Path(name)) for name in networks]
    found = Referee((parse("latency", limit),), []).pick(candidates, results)
    assert found is not None
    return found.name


@pytest.mark.parametrize(
    ("budgets", "slower"),
    [
        pytest.param({"size": "<=0.5x"}, True, id="size alone, which the original exceeds"),
        pytest.param({"size": "<=1x"}, False, id="the original keeps to it"),
        pytest.param({"latency": "<=0.5x"}, False, id="time"),
        pytest.param({"latency": "<=2x", "size": "<=0.5x"}, False, id="both"),
    ],
)
def test_only_who_asks_for_other_things_than_time_gets_a_slower_network(budgets: dict[str, str], slower: bool) -> None:
    referee = Referee([parse(name, text) for name, text in budgets.items()], [])
    assert referee.may_be_slower({ORIGINAL: result(ORIGINAL, 1.0, 200.0)}) is slower


def test_a_budget_of_nothing_is_kept_by_what_takes_nothing() -> None:
    space = SimpleNamespace(original=Cost())
    referee = Referee([parse("bops", "<=0.5x")], [space])  # type: ignore[list-item]
    assert not referee.may_be_slower({ORIGINAL: result(ORIGINAL, 1.0, 200.0)})
