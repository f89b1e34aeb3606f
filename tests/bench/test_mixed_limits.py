"""Which lines a comparison of mixed precision gives, on figures that are made up."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from convkit.runtimes.bench.estimate import Interval, point
from tests.bench import comparison, mixed_limits, peer
from tests.bench.limits import Line
from tests.bench.mixed import Mixed
from tests.bench.product import Command, Searched

PHOTOS = 200


class _Measured(dict[str, Any]):
    """Time over float's, then metrics, by candidate."""

    def __getitem__(self, name: str) -> Any:
        ratio, metrics = dict.__getitem__(self, name)
        return SimpleNamespace(seconds={"p50": point(ratio)}, ratios={"p50": point(ratio)}, metrics=metrics)


def _found(name: str, figures: dict[str, tuple[float, dict[str, float]]], evaluations: float | None = 10) -> Mixed:
    metrics = tuple(figures["float"][1])
    case: Any = SimpleNamespace(name=name, accuracy=metrics, evaluation=range(PHOTOS))
    own = [one for one in figures if one.startswith("convkit")]
    beyond = [one for one in own if one.endswith(("narrower", "trained"))]
    rivals = [one for one in figures if not one.startswith(("convkit", "float"))]
    made = {
        one: Searched(Path(), None, "searched", "", Command(200.0, 1), evaluations, one != "convkit apart")
        for one in own
    }
    searched = {one: made[one] for one in own if one not in beyond}
    further = {one: made[one] for one in beyond}
    over = {(one, rival): point(figures[one][0] / figures[rival][0]) for one in (*own, "float") for rival in rivals}
    measured: Any = _Measured(figures)
    costs = {rival: {"evaluations": 150.0, "metric": "agreement", "max_drop": 0.015} for rival in rivals}
    return Mixed(case, "openvino", measured, searched, further, over, costs, {}, {})


def _line(found: Mixed, what: str) -> Line:
    (line,) = (line for line in mixed_limits.of_mixed(found) if what in line.what)
    return line


@pytest.fixture(autouse=True)
def _able(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "has_vnni", lambda: True)
    monkeypatch.setattr(comparison, "has_bf16", lambda: True)


CLASSIFIED = {
    "float": (1.0, {"top1": 83.0, "agreement": 100.0}),
    "rival": (0.4, {"top1": 82.0, "agreement": 96.0}),
    "convkit": (0.5, {"top1": 83.0, "agreement": 99.0}),
    "convkit <=0.4x": (0.38, {"top1": 82.5, "agreement": 98.6}),
}


def test_the_fastest_that_is_as_accurate_stands_for_a_peer() -> None:
    line = _line(_found("lite0", CLASSIFIED), "p50 over rival's")
    assert line.met
    assert line.measured.value == pytest.approx(0.95)


def test_a_faster_but_worse_result_matches_no_peer() -> None:
    worse = CLASSIFIED | {"convkit <=0.4x": (0.3, {"top1": 82.5, "agreement": 95.0})}
    line = _line(_found("lite0", worse), "p50 over rival's")
    assert not line.met
    assert line.measured.value == pytest.approx(1.25)


def test_top1_is_less_only_where_it_is_less_than_chance_makes_it() -> None:
    """Of four classes that changed three may have been right, 1.5 points; of sixteen, not nine."""
    some = CLASSIFIED | {"rival": (0.4, {"top1": 84.0, "agreement": 90.0})}
    few = some | {"convkit <=0.4x": (0.38, {"top1": 81.5, "agreement": 98.0})}
    assert _line(_found("lite0", few), "p50 over rival's").measured.value == pytest.approx(0.95)
    many = some | {"convkit <=0.4x": (0.38, {"top1": 78.5, "agreement": 92.0})}
    assert _line(_found("lite0", many), "p50 over rival's").measured.value == pytest.approx(1.25)


def test_prediction_and_measurement_meet_in_every_search() -> None:
    what = "searches whose prediction and measurement do not meet"
    assert _line(_found("lite0", CLASSIFIED), what).met
    line = _line(_found("lite0", CLASSIFIED | {"convkit apart": CLASSIFIED["convkit"]}), what)
    assert (line.met, line.measured.value) == (False, 1)


def test_classes_kept_of_zero_shot_images_count_too() -> None:
    kept = {"rival": 97.0, "convkit": 98.0, "convkit <=0.4x": 96.9, "float": 100.0}
    found = replace(_found("lite0", CLASSIFIED), zero_shot=kept)
    assert _line(found, "p50 over rival's").measured.value == pytest.approx(1.25)


def test_the_original_stands_for_a_peer_that_is_slower_than_it() -> None:
    slower = CLASSIFIED | {"rival": (2.0, {"top1": 83.0, "agreement": 99.5})}
    assert _line(_found("lite0", slower), "p50 over rival's").measured.value == 0.5


def test_a_peer_that_gives_the_float_network_back_is_matched_by_that() -> None:
    """Two measurements of one network differ by chance."""
    given_back = CLASSIFIED | {"rival": (0.98, {"top1": 83.0, "agreement": 100.0, "sqnr": 200.0})}
    assert _line(_found("lite0", given_back), "p50 over rival's").measured.value == 1
    near = CLASSIFIED | {"rival": (0.98, {"top1": 83.0, "agreement": 100.0, "sqnr": 60.0})}
    assert not _line(_found("lite0", near), "p50 over rival's").met


@pytest.mark.parametrize(("seconds", "agreement"), [(0.5, 98.6), (0.42, 98.6), (0.41, 99.0)])
def test_agreement_counts_only_in_the_peers_time(seconds: float, agreement: float) -> None:
    found = _found("lite0", CLASSIFIED | {"convkit": (seconds, CLASSIFIED["convkit"][1])})
    assert _line(found, "agreement in rival's time").measured.value == agreement


def test_evaluations_are_compared() -> None:
    assert _line(_found("lite0", CLASSIFIED), "full evaluations").measured.value == 15
    untold = _line(_found("lite0", CLASSIFIED, None), "full evaluations")
    assert untold.verdict == "not shown here: report.json has no count of evaluations"
    assert not untold.missed


def test_evaluations_count_of_what_keeps_to_the_budget_that_the_peer_was_given() -> None:
    beyond = CLASSIFIED | {"convkit <=0.4x": (0.38, {"top1": 83.0, "agreement": 98.4})}
    assert _line(_found("lite0", beyond), "full evaluations").missed
    slower = CLASSIFIED | {"convkit <=0.4x": (0.41, {"top1": 83.0, "agreement": 99.0})}
    assert _line(_found("lite0", slower), "full evaluations").missed


IMAGES = {"float": (1.0, {"psnr": 32.0}), "rival": (0.17, {"psnr": 30.0}), "convkit": (0.19, {"psnr": 31.8})}


def test_restoration_is_judged_by_what_it_loses_and_its_time() -> None:
    line = _line(_found("upconv7", IMAGES), "dB lost")
    assert line.met
    assert line.measured.value == 0.19


def test_what_a_cpu_cannot_show_is_neither_passed_nor_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "has_bf16", lambda: False)
    line = _line(_found("upconv7", IMAGES | {"convkit": (0.4, {"psnr": 31.8})}), "dB lost")
    assert (line.met, line.missed) == (False, False)
    assert line.verdict == "not shown here: no bf16 on this CPU"


def test_what_goes_beyond_formats_has_lines_of_its_own() -> None:
    """Narrower layers do not mend the line of formats alone, and a peer is matched by formats alone."""
    found = _found("upconv7", IMAGES | {"convkit": (0.4, {"psnr": 31.8}), "convkit narrower": (0.16, {"psnr": 31.8})})
    alone, narrower = (line for line in mixed_limits.of_mixed(found) if "dB lost" in line.what)
    assert (alone.measured.value, narrower.measured.value) == (0.4, 0.16)
    assert narrower.what.endswith(", narrower")
    assert _line(found, "p50 over rival's, at no less").measured.value == pytest.approx(0.4 / 0.17)
    assert _line(found, "psnr over rival's").measured.value == pytest.approx(1.8)


def test_a_trained_network_is_held_against_the_same_agreement() -> None:
    kept = {"rival": 95.0, "convkit": 97.0, "convkit <=0.4x": 97.5, "convkit trained": 98.5, "float": 100.0}
    trained = CLASSIFIED | {"convkit trained": (0.39, {"top1": 82.5, "agreement": 99.5})}
    found = replace(_found("lite0", trained), zero_shot=kept)
    lines = [line for line in mixed_limits.of_mixed(found) if "agreement in rival's time" in line.what]
    assert [line.measured.value for line in lines] == [98.6, 97.5, 99.5, 98.5]
    assert [line.met for line in lines] == [True, False, True, True]


def test_ahead_on_the_hardest_by_either_measure() -> None:
    better = IMAGES | {"convkit": (0.17, {"psnr": 31.2})}
    assert _line(_found("upconv7", better), "psnr over rival's").met
    faster = _found("upconv7", IMAGES | {"convkit": (0.15, {"psnr": 30.1})})
    lines = [line for line in mixed_limits.of_mixed(faster) if line.limit == mixed_limits.AHEAD]
    assert [line.met for line in lines] == [True]


def test_a_line_that_its_interval_leaves_open_says_so() -> None:
    assert Line("", "", Interval(0.99, 0.9, 1.1), "<=", 1.0, "x").verdict == "pass, not sure"
