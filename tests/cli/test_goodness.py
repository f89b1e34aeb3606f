"""A network counts as good by what it surely lost, never by chance; a collapse is always seen."""

import pytest

from convkit.cli.goodness import Limits, good, remark

FLIPS = [
    (0, 23, True),
    (2, 23, True),
    (4, 23, False),
    (23, 23, False),
    (60, 1000, True),
    (80, 1000, False),
    (270, 5000, True),
    (300, 5000, False),
]


@pytest.mark.parametrize(("drop", "count", "as_good"), FLIPS)
def test_flips_count_where_they_are_no_chance(drop: int, count: int, as_good: bool) -> None:
    scores = {"sqnr": 30.0, "agreement": 100 - 100 * drop / count}
    assert good(scores, {"agreement": 100.0}, Limits(5), count) == as_good
    assert not good(scores | {"sqnr": 9.9}, {"agreement": 100.0}, Limits(5), count)


def test_what_may_be_lost_whole_may_be_lost() -> None:
    for points in (100, 200):
        assert good({"sqnr": 30.0, "agreement": 0.0}, {"agreement": 100.0}, Limits(points), 30)


def test_an_image_must_be_cleaner_than_classes() -> None:
    assert good({"sqnr": 15.0, "agreement": 100.0}, {"agreement": 100.0}, Limits(5), 23)
    assert not good({"sqnr": 15.0, "psnr": 40.0}, {"psnr": 200.0}, Limits(5), 23)
    assert good({"sqnr": 15.0, "psnr": 40.0}, {"psnr": 200.0}, Limits(5, 15.0), 23)


@pytest.mark.parametrize(("found", "as_good"), [(29.6, True), (29.4, False)])
def test_a_decibel_to_the_targets_weighs_like_five_points(found: float, as_good: bool) -> None:
    assert good({"sqnr": 30.0, "psnr": found}, {"psnr": 30.5}, Limits(5), 4) == as_good


@pytest.mark.parametrize(("count", "says"), [(0, "one calibration sample only"), (1, "1 held-back sample,"), (4, "")])
def test_a_handful_of_samples_tells_little(count: int, says: str) -> None:
    assert says in remark(count)
    assert bool(remark(count)) == bool(says)
