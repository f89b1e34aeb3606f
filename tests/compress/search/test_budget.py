"""The choice against every plan there is, enumerated."""

import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convkit.compress.option import FLOAT, Option
from convkit.compress.search import budget
from convkit.compress.search import problem as problems
from convkit.compress.search.problem import QUANTITIES, Choice, Cost, Formats, Problem
from tests.compress.search import instance
from tests.compress.search.problems import SMALL, problems_of, scaled


def every(problem: Problem, exclude: Iterable[Formats] = ()) -> list[Choice]:
    """All plans, by the definition of their cost."""
    plans = [dict(zip(problem.options, plan, strict=True)) for plan in itertools.product(*problem.options.values())]
    choices = [problem.choice(plan) for plan in plans if all(len({plan[x] for x in g}) == 1 for g in problem.groups)]
    barred = [set(formats.items()) for formats in exclude]
    return [
        c for c in choices if math.isfinite(c.cost.seconds) and not any(b <= set(c.formats.items()) for b in barred)
    ]


def best(choices: Iterable[Choice], limits: dict[str, float], *order: str) -> tuple[float, ...] | None:
    within = [c for c in choices if all(c.cost[name] <= limit for name, limit in limits.items())]
    return min((tuple(c.cost[name] for name in order) for c in within), default=None)


LIMITS = st.dictionaries(st.sampled_from(QUANTITIES[1:]), st.integers(0, 80).map(float), max_size=3)


@given(problems_of(), LIMITS)
def test_the_choice_is_the_best_of_all_plans(problem: Problem, limits: dict[str, float]) -> None:
    found, second = budget.solve(problem, limits), next(iter(limits), "seconds")
    expected = best(every(problem), limits, "loss", second)
    assert expected == (found and (found.cost.loss, found.cost[second]))
    assert found is None or found.cost == problem.cost(found.formats)


@given(problems_of(), st.integers(0, 40).map(float))
def test_time_under_a_limit_of_loss(problem: Problem, limit: float) -> None:
    found = budget.solve(problem, {"loss": limit}, "seconds")
    assert best(every(problem), {"loss": limit}, "seconds", "loss") == (found and (found.cost.seconds, found.cost.loss))


@given(problems_of(st.integers(-6, 6).map(float)), st.integers(-10, 10).map(float))
def test_what_gains_counts_as_well(problem: Problem, limit: float) -> None:
    """By labels a network in low precision may lose less than nothing."""
    choices = every(problem)
    found = budget.solve(problem, {"bytes": limit})
    assert best(choices, {"bytes": limit}, "loss", "bytes") == (found and (found.cost.loss, found.cost.bytes))
    found = budget.solve(problem, {"loss": limit}, "seconds")
    assert best(choices, {"loss": limit}, "seconds", "loss") == (found and (found.cost.seconds, found.cost.loss))
    front = budget.front(problem)
    assert all(a.cost.loss < b.cost.loss and a.cost.seconds > b.cost.seconds for a, b in itertools.pairwise(front))
    assert not front or front[0].cost.loss == best(choices, {}, "loss", "seconds")[0]  # type: ignore[index]


@given(problems_of(SMALL, 1e-4), st.data(), st.sampled_from([0.0, 1e-8, 1e-6, 1e-5]))
def test_the_choice_is_the_best_just_within_and_beneath_a_limit(
    problem: Problem, data: st.DataObject, beneath: float
) -> None:
    choices = every(problem)
    reached = data.draw(st.sampled_from(choices)).cost.seconds if choices else 1.0
    limit = reached - beneath * abs(reached)
    found, expected = budget.solve(problem, {"seconds": limit}), best(choices, {"seconds": limit}, "loss")
    assert (found is None) == (expected is None)
    assert found is None or found.cost.loss == pytest.approx((expected or (math.nan,))[0], rel=1e-5, abs=1e-12)
    assert found is None or problems.meets(found.cost.seconds, limit)


@given(problems_of(), st.sampled_from(QUANTITIES[1:]))
def test_a_limit_out_of_reach_has_a_nearest(problem: Problem, quantity: str) -> None:
    found = budget.nearest(problem, quantity)
    assert best(every(problem), {}, quantity, "loss") == (found and (found.cost[quantity], found.cost.loss))
    if found is not None:
        assert budget.solve(problem, {quantity: found.cost[quantity] - 0.5}) is None
        assert budget.solve(problem, {quantity: found.cost[quantity]}) is not None


@given(problems_of(), st.sampled_from(QUANTITIES[1:]))
@settings(max_examples=40)
def test_the_front_is_the_pareto_front(problem: Problem, quantity: str) -> None:
    points = {(c.cost.loss, c.cost[quantity]) for c in every(problem)}
    pareto = {p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)}
    found = budget.front(problem, quantity)
    assert [(c.cost.loss, c.cost[quantity]) for c in found] == sorted(pareto)
    some = budget.front(problem, quantity, points=4)
    assert {(c.cost.loss, c.cost[quantity]) for c in some} <= pareto
    assert len(some) <= 4
    assert not pareto or {min(pareto), max(pareto)} <= {(c.cost.loss, c.cost[quantity]) for c in some}


@given(problems_of(), LIMITS, st.data())
def test_an_excluded_plan_is_not_chosen_again(problem: Problem, limits: dict[str, float], data: st.DataObject) -> None:
    exclude: list[Formats] = []
    for _ in range(4):
        found = budget.solve(problem, limits, exclude=exclude)
        expected = best(every(problem, exclude), limits, "loss")
        assert expected == (found and (found.cost.loss,))
        if found is None:
            return
        named = (
            data.draw(st.sets(st.sampled_from(list(found.formats)), min_size=1)) if data.draw(st.booleans()) else None
        )
        exclude.append({layer: option for layer, option in found.formats.items() if named is None or layer in named})


@given(problems_of(), st.data())
def test_a_larger_budget_is_never_worse(problem: Problem, data: st.DataObject) -> None:
    limits = sorted(data.draw(st.lists(st.integers(0, 90).map(float), min_size=2, max_size=3)))
    losses = [
        found.cost.loss if found else math.inf for found in (budget.solve(problem, {"seconds": s}) for s in limits)
    ]
    assert losses == sorted(losses, reverse=True)


@given(problems_of(), st.data())
def test_what_is_pinned_stays(problem: Problem, data: st.DataObject) -> None:
    free = [layer for layer in problem.options if not any(layer in group for group in problem.groups)]
    if not free:
        return
    layer = data.draw(st.sampled_from(free))
    option = data.draw(st.sampled_from(list(problem.options[layer])))
    found = budget.solve(problems.pinned(problem, {layer: option}), {})
    expected = best([c for c in every(problem) if c.formats[layer] == option], {}, "loss", "seconds")
    assert expected == (found and (found.cost.loss, found.cost.seconds))
    assert found is None or found.formats[layer] == option


def test_no_layers_are_a_plan_too() -> None:
    found = budget.solve(Problem({}, fixed=Cost(seconds=2.0)), {"seconds": 3.0})
    assert found == Choice({}, Cost(seconds=2.0))
    assert budget.solve(Problem({}, fixed=Cost(seconds=2.0)), {"seconds": 1.0}) is None


def test_corrected_costs_change_the_choice() -> None:
    fast = Option("int8", "uint8")
    problem = Problem(
        {"a": {FLOAT: Cost(0.0, 4.0), fast: Cost(1.0, 1.0)}, "b": {FLOAT: Cost(0.0, 4.0), fast: Cost(2.0, 1.0)}}
    )
    assert _text(budget.solve(problem, {"seconds": 5.0})) == {"a": "int8/uint8", "b": "fp32"}
    dear = problems.corrected(problem, {("a", fast): Cost(3.0, 1.0)})
    assert _text(budget.solve(dear, {"seconds": 5.0})) == {"a": "fp32", "b": "int8/uint8"}
    slow = scaled(problem, "seconds", 1.5)
    assert _text(budget.solve(slow, {"seconds": 5.0})) == {"a": "int8/uint8", "b": "int8/uint8"}


def _text(choice: Choice | None) -> dict[str, str]:
    assert choice is not None
    return {layer: str(option) for layer, option in choice.formats.items()}


SOLVED = """
import json
from convkit.compress.search import budget
from tests.compress.search import instance
front = budget.front(instance.network(12, 16, seed=3), points=6)
print(json.dumps([[str(option) for option in choice.formats.values()] for choice in front]))
"""


def test_the_same_problem_has_the_same_answer_in_every_process() -> None:
    """And nothing but the answer is printed, though HiGHS would."""
    printed = []
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        words, root = [sys.executable, "-c", SOLVED], Path(__file__).parents[3]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment, cwd=root)
        printed.append(done.stdout)
    assert printed[0] == printed[1]
    assert len(json.loads(printed[0])) == 6


def test_a_network_of_eighty_layers_with_eight_options() -> None:
    problem = instance.network(80, 90)
    fastest = budget.nearest(problem, "seconds")
    assert fastest is not None
    limit = 1.3 * fastest.cost.seconds
    found = budget.solve(problem, {"seconds": limit})
    assert found is not None
    assert fastest.cost.seconds < found.cost.seconds <= limit
    assert found.cost.loss < 0.2 * fastest.cost.loss
    # No single other Option makes it better: the solver is not asked.
    for layer, options in problem.options.items():
        for option in options:
            cost = problem.cost({**found.formats, layer: option})
            assert cost.loss >= found.cost.loss * (1 - 1e-6) or cost.seconds > limit
