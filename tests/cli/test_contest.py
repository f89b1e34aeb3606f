"""The contest keeps the fastest of those that are as good; what it is told about latency here is made up, but for the
last test's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from convkit.cli import contest, quantizing
from convkit.cli.contest import ORIGINAL, Candidate, Contest, Standing
from convkit.cli.goodness import Limits
from convkit.compress.data import Data
from convkit.compress.model import load
from convkit.compress.plan import Plan
from convkit.runtimes.bench.estimate import Interval, point
from convkit.runtimes.bench.measure import Measurement, Result, Settings
from tests import here
from tests.nets.small import ref as shipped

Times = dict[str, tuple[float, float]]
"""Name of a network -> p50 ratio to the original, SQNR on the engine."""


def result(name: str, ratio: float, sqnr: float) -> Result:
    ratios = {key: Interval(ratio, ratio - 0.01, ratio + 0.01) for key in ("p10", "p50")}
    metrics = {"agreement": 100.0, "sqnr": sqnr}
    return Result(name, "onnxruntime", "", None, {"p50": point(ratio)}, ratios, 1, 1, 1, 0, 0, None, metrics)


class Cleanest:
    """Chooses by SQNR alone."""

    def __init__(self, *, slower: bool) -> None:
        self.slower = slower

    def pick(self, fit: Sequence[Candidate], results: Mapping[str, Result]) -> Candidate | None:
        return max(fit, key=lambda one: results[one.name].metrics["sqnr"], default=None)

    def may_be_slower(self, results: Mapping[str, Result]) -> bool:
        return self.slower


def held(
    monkeypatch: pytest.MonkeyPatch,
    *runs: Times,
    simulated: float = 30.0,
    judge: contest.Judge | None = None,
    candidate: Callable[[str], Candidate] = lambda name: Candidate(name, Plan("", ""), Path(name)),
) -> tuple[Standing, list[list[str]]]:
    """Where a contest stands in which each run measures what it is told, and who was in each."""
    asked: list[list[str]] = []

    def measure(_contest: Contest, candidates: list[Candidate], _budget: float, _say: object) -> Measurement:
        told = runs[len(asked)]
        asked.append([c.name for c in candidates])
        results = tuple(result(name, *told[name]) for name in (ORIGINAL, *asked[-1]))
        return Measurement(ORIGINAL, results, 6, 1, None, Settings(), {}, ())

    monkeypatch.setattr(contest, "measured", measure)
    data = Data({"x": np.zeros((30, 1), np.float32)}, None, "")
    target = here.target("onnxruntime-cpu")
    work = Contest(target, Path("original.onnx"), data, ("agreement", "sqnr"), Limits(5), simulated, True, 2, 1.0, 0)
    candidates = [candidate(name) for name in runs[0] if name != ORIGINAL]
    return contest.hold(work, candidates, lambda _line: None, judge), asked


LOOK: Times = {ORIGINAL: (1, 200), "a": (0.5, 30), "b": (0.52, 30), "c": (0.6, 30), "d": (0.3, 5)}


def test_the_last_run_decides_between_the_fastest_that_are_good(monkeypatch: pytest.MonkeyPatch) -> None:
    standing, asked = held(monkeypatch, LOOK, {ORIGINAL: (1, 200), "a": (0.5, 30), "b": (0.48, 30)})
    assert asked == [["a", "b", "c", "d"], ["a", "b"]]
    assert standing.kept is not None
    assert standing.kept.name == "b"
    shown = {each.name: each.ratios["p50"].value for each in standing.results}
    assert shown == {ORIGINAL: 1, "a": 0.5, "b": 0.48, "c": 0.6, "d": 0.3}


def test_of_equally_fast_ones_the_nearest_to_the_original_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    standing, asked = held(monkeypatch, {ORIGINAL: (1, 200), "a": (0.5, 30), "b": (0.502, 33)})
    assert len(asked) == 1
    assert standing.kept is not None
    assert standing.kept.name == "b"


def test_what_is_surely_faster_goes_before_what_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    standing, _ = held(monkeypatch, {ORIGINAL: (1, 200), "a": (0.992, 33), "b": (0.989, 30)})
    assert standing.kept is not None
    assert standing.kept.name == "b"  # "a" is as fast and cleaner, but its interval reaches 1


def test_a_clean_result_is_not_held_against_a_cleaner_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    standing, _ = held(monkeypatch, {ORIGINAL: (1, 200), "a": (0.5, 60)}, simulated=130.0)
    assert standing.kept is not None


def test_what_does_not_pay_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    standing, _ = held(monkeypatch, {ORIGINAL: (1, 200), "a": (0.995, 30)})
    assert standing.kept is None
    assert standing.why.startswith(f"{here.target('onnxruntime-cpu').weight} does not pay here: 0.99x")


SLOW: Times = {ORIGINAL: (1, 200), "small": (1.4, 33), "fast": (0.8, 31)}


@pytest.mark.parametrize(("slower", "kept"), [(True, "small"), (False, "fast")])
def test_a_slower_network_is_kept_where_time_is_not_asked_for(
    monkeypatch: pytest.MonkeyPatch, slower: bool, kept: str
) -> None:
    standing, _ = held(monkeypatch, SLOW, judge=Cleanest(slower=slower))
    assert standing.kept is not None
    assert standing.kept.name == kept
    alone, _ = held(monkeypatch, {ORIGINAL: (1, 200), "small": (1.4, 33)}, judge=Cleanest(slower=slower))
    assert (alone.kept is not None) is slower


def test_the_original_is_kept_where_the_judge_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Cleanest(slower=True)
    monkeypatch.setattr(judge, "pick", lambda _fit, _results: None)
    standing, _ = held(monkeypatch, SLOW, judge=judge)
    assert (standing.kept, standing.why) == (None, "the original is nearer to it than what was made")


def test_an_engine_that_computes_something_else_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    standing, _ = held(monkeypatch, {ORIGINAL: (1, 200), "a": (0.5, 12.6)}, simulated=33.8)
    assert standing.kept is None
    assert standing.why == ("onnxruntime does not compute what it was given: 12.6 dB of SQNR, 33.8 dB in simulation")


@pytest.mark.parametrize("judge", [None, Cleanest(slower=False)])
def test_what_computes_something_else_leaves_its_place_to_the_next(
    monkeypatch: pytest.MonkeyPatch, judge: contest.Judge | None
) -> None:
    """Only what would be kept is simulated, and asked once more for none that is not."""
    times = {ORIGINAL: (1, 200), "wrong": (0.4, 39), "right": (0.5, 38), "slow": (0.8, 12)}
    asked: list[str] = []

    def promised(name: str) -> float:
        asked.append(name)
        return {"wrong": 60.0, "right": 40.0, "slow": 12.0}[name]

    def candidate(name: str) -> Candidate:
        return Candidate(name, Plan("", ""), Path(name), partial(promised, name))

    standing, _ = held(monkeypatch, times, times, judge=judge, candidate=candidate)
    assert standing.kept is not None
    assert standing.kept.name == "right"
    if judge is not None:
        assert asked == ["wrong", "right"]


def test_a_collapse_is_never_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    standing, _ = held(monkeypatch, {ORIGINAL: (1, 200), "a": (0.5, 3)}, simulated=4.0)
    assert standing.kept is None
    assert standing.why == "no quantized network was as good as the original on held-back data"


@pytest.mark.parametrize("biases", ["inside", "behind"])
def test_what_openvino_makes_of_free_sizes_is_measured(biases: str) -> None:
    """ShuffleNet with a free image: OpenVINO 2026.4.1 drops a bias inside a Conv whose sum it reads a size from."""
    pixels = np.random.default_rng(0).standard_normal((12, 3, 64, 64)).astype(np.float32)
    target = replace(here.target("openvino-cpu"), biases=biases, placements=({"name": "everything"},))
    work = quantizing.Job(
        "", load(shipped("shufflenet")), Data({"x": pixels}, None, ""), target, Limits(100, 0), budget=0.3
    )
    outcome = quantizing.quantize(work, lambda _line: None)
    engine = {each.name: each.metrics["sqnr"] for each in outcome.standing.results}["everything"]
    simulated = max(attempt.scores["sqnr"] for attempt in outcome.attempts)
    if biases == "behind":
        assert engine == pytest.approx(simulated, abs=1)
    else:
        assert engine < simulated - 6
        assert (outcome.kept, outcome.plan.layers) == (ORIGINAL, {})
        assert outcome.reason.startswith("openvino does not compute what it was given: ")
