"""The bench of every plan, small and quick: what it measures is whole, and its distance is what it says."""

import pytest

from tests.bench import enumerated


def test_the_distance_is_the_part_by_which_another_plan_is_better_in_both() -> None:
    every = [(1.0, 1.0), (0.5, 2.0)]
    assert enumerated.excess((1.0, 1.0), every) == 0.0
    assert enumerated.excess((1.2, 1.1), every) == pytest.approx(0.1)
    assert enumerated.excess((0.7, 1.5), every) == 0.0


def test_every_plan_is_built_and_measured() -> None:
    found = enumerated.run(1.0, lambda _text: None, layers=2, size=8)
    assert found.plans == 9
    assert len(found.excess) == len(found.measured) == len(enumerated.PARTS)
