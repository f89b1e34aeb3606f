"""Choices from tables: what was measured of a choice counts, and no prediction."""

import pytest

from convkit.compress.option import FLOAT, Option
from convkit.compress.search import seen
from convkit.compress.search.problem import Cost, Formats, Problem, pinned
from convkit.compress.search.refine import Trial

LOW = Option.parse("int8")
NAMES = ("a", "b", "c")
PROBLEM = Problem({name: {FLOAT: Cost(0.0, 2.0, 4.0), LOW: Cost(1.0, 1.0, 1.0)} for name in NAMES})
"""Each layer in low precision spares a second and costs one of loss."""


def formats(*low: str) -> Formats:
    return {name: LOW if name in low else FLOAT for name in NAMES}


def trial(seconds: float, loss: float, *low: str) -> Trial:
    return Trial(formats(*low), PROBLEM.cost(formats(*low)), Cost(loss, seconds, 0.0))


def test_what_was_found_too_slow_is_no_choice() -> None:
    """Predicted at 5 seconds it took 6: the next one within the limit takes its place."""
    slow = [trial(6.0, 0.5, name) for name in NAMES]
    found = seen.best(PROBLEM, slow, {"seconds": 5.0})
    assert found is not None
    assert seen.cost(slow, found) == Cost(2.0, 4.0, 6.0)
    assert seen.measured(slow, found) is None


def test_what_was_found_faster_than_predicted_is_one() -> None:
    fast = [trial(2.5, 2.0, "a", "b")]
    found = seen.best(PROBLEM, fast, {"seconds": 2.9})
    assert found is not None
    assert found.formats == formats("a", "b")
    assert seen.best(PROBLEM, [], {"seconds": 2.9}) is None


def test_the_closest_is_measured_by_what_was_found() -> None:
    tried = [trial(2.5, 2.0, "a", "b"), trial(3.5, 3.0, "a", "b", "c")]
    found = seen.closest(PROBLEM, tried, {"seconds": 1.0})
    assert found is not None
    assert found.formats == formats("a", "b")
    assert seen.closest(PROBLEM, [], {"seconds": 1.0}).formats == formats(*NAMES)  # type: ignore[union-attr]


def test_pins_leave_out_what_was_measured_without_them() -> None:
    tried = [trial(2.5, 0.0, "a", "b")]
    kept = pinned(PROBLEM, {"a": FLOAT})
    found = seen.best(kept, tried, {"seconds": 4.0})
    assert found is not None
    assert found.formats == formats("b", "c")


@pytest.mark.parametrize("limits", [{}, {"seconds": 5.5}])
def test_no_point_of_the_front_is_beaten_by_another(limits: dict[str, float]) -> None:
    tried = [trial(6.5, 0.5, "a"), trial(3.5, 0.7, "a", "b"), trial(7.0, 3.0, *NAMES)]
    costs = [seen.cost(tried, choice) for choice in seen.front(PROBLEM, tried, 6, limits)]
    assert costs
    for one in costs:
        assert not [
            other for other in costs if other != one and other.loss <= one.loss and other.seconds <= one.seconds
        ]
        assert all(one[quantity] <= limit for quantity, limit in limits.items())
    assert Cost(0.7, 3.5, 0.0) in costs
    assert (Cost(0.0, 6.0, 12.0) in costs) == (not limits)
