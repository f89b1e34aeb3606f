"""Metrics: by hand where a definition says what is right, and the same laws for every part of the folder."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit.compress import parts
from convkit.compress.errors import ConvkitError
from convkit.compress.metric import Metric, defaults, evaluate, load

RNG = np.random.default_rng(0)
SCORES = RNG.standard_normal((50, 10)).astype(np.float32)
LABELS = RNG.integers(0, 10, 50)
OUT = {"y": SCORES}


@pytest.mark.parametrize("name", parts.names("compress/metrics"))
def test_every_metric_scores_the_float_network_itself_best(name: str) -> None:
    metric = load(name)
    assert isinstance(metric, Metric)
    labels = SCORES if name == "nmse" else SCORES.argmax(axis=1)
    best = evaluate(name, OUT, OUT, labels)
    worse = evaluate(name, {"y": SCORES + RNG.standard_normal(SCORES.shape).astype(np.float32)}, OUT, labels)
    if metric.better == "lower":
        assert 0 <= best < worse
    else:
        assert best == (100 if metric.unit == "%" else 200) > worse


def test_top_k_by_hand() -> None:
    right = [label in np.argsort(-row)[:5] for row, label in zip(SCORES, LABELS, strict=True)]
    assert evaluate("top5", OUT, labels=LABELS) == pytest.approx(100 * np.mean(right))
    assert evaluate("top1", OUT, labels=LABELS) == pytest.approx(100 * np.mean(SCORES.argmax(1) == LABELS))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.bool_])
def test_scores_that_are_whole_numbers_rank_as_they_do_in_floats(dtype: type[np.generic]) -> None:
    """Minus the lowest of int8 is the lowest again, and minus a number without a sign is a high one."""
    scores = np.array([[0, 255, 3, 128, 7, 1, 100]], np.uint8).astype(dtype)
    best = scores.astype(np.float32).argmax(axis=1)
    assert evaluate("top1", {"y": scores}, labels=best) == evaluate("top5", {"y": scores}, labels=best) == 100


def test_classes_are_on_the_axis_that_they_have_in_the_reference() -> None:
    """Outputs in few bits no longer sum to 1, which is how probabilities are told."""
    odds = RNG.dirichlet(np.ones(9), (4, 12))
    labels, coarse = odds.argmax(axis=-1), {"y": np.round(odds * 15) / 12}
    assert evaluate("top5", coarse, {"y": odds}, labels) == 100


def test_a_reference_of_another_rank_says_nothing_of_classes() -> None:
    odds = RNG.dirichlet(np.ones(9), (4, 12))
    mean = {"y": odds.mean(axis=1)}
    for name in ("top1", "cross_entropy"):
        own = evaluate(name, mean, labels=mean["y"].argmax(axis=1))
        assert evaluate(name, mean, {"y": odds}, mean["y"].argmax(axis=1)) == own


def test_what_has_no_label_is_left_out() -> None:
    """As in torch's losses, -100 is no class; a row of no acceptable class is none either."""
    some = np.where(np.arange(50) % 3 > 0, LABELS, -100)
    kept = some >= 0
    for name in ("top1", "top5"):
        wanted = evaluate(name, {"y": SCORES[kept]}, labels=LABELS[kept])
        assert evaluate(name, OUT, labels=some) == wanted
        assert evaluate(name, OUT, labels=np.eye(10, dtype=bool)[LABELS] & kept[:, None]) == wanted
        with pytest.raises(ConvkitError, match="no sample has a label"):
            evaluate(name, OUT, labels=np.full(50, -100))


def test_several_acceptable_classes_and_a_narrow_matrix() -> None:
    scores = {"y": np.eye(4, 8, dtype=np.float32)}
    acceptable = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=bool)
    assert evaluate("top1", scores, labels=acceptable) == 50


@given(st.integers(2, 6), st.integers(1, 5))
def test_acceptable_classes_as_indices_or_as_a_matrix(samples: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, labels = {"y": rng.standard_normal((samples, 7))}, rng.integers(0, 7, samples)
    assert evaluate("top5", scores, labels=labels) == evaluate("top5", scores, labels=np.eye(7, dtype=bool)[labels])


def test_cross_entropy_by_hand() -> None:
    odds = np.array([[0.5, 0.25, 0.25], [0.1, 0.9, 0.0]])
    several = np.array([[True, True, False], [False, True, False]])
    assert evaluate("cross_entropy", {"y": odds}, labels=np.array([0, 1])) == pytest.approx(-np.log([0.5, 0.9]).mean())
    assert evaluate("cross_entropy", {"y": odds}, labels=several) == pytest.approx(-np.log([0.75, 0.9]).mean())
    assert evaluate("cross_entropy", {"y": np.log(odds + 1e-9) + 3}, labels=several) == pytest.approx(
        -np.log([0.75, 0.9]).mean(), abs=1e-6
    )
    unlabelled = several & [[True], [False]]
    assert evaluate("cross_entropy", {"y": odds}, labels=unlabelled) == pytest.approx(-np.log(0.75))
    with pytest.raises(ConvkitError, match="no sample has a label"):
        evaluate("cross_entropy", {"y": odds}, labels=np.zeros((2, 3), dtype=bool))


def test_a_probability_that_is_rounded_to_zero_costs_what_can_be_told() -> None:
    odds, rounded = np.array([[1 - 1e-4, 1e-4]]), np.array([[1.0, 0.0]])
    assert evaluate("cross_entropy", {"y": rounded}, {"y": odds}, np.array([1])) == pytest.approx(
        np.log(2.0**23), rel=1e-6
    )
    coarse = np.array([[0.99, 0.02]])  # of probabilities, though its sum is not 1
    for factor in (1.0, 1.05):
        found = evaluate("cross_entropy", {"y": coarse * factor}, {"y": odds}, np.array([1]))
        assert found == pytest.approx(-np.log(0.02 / 1.01))


def test_cross_entropy_of_positions_and_of_classes_that_are_last() -> None:
    scores = RNG.standard_normal((2, 3, 4, 5))
    labels = RNG.integers(0, 3, (2, 4, 5))
    rows = np.moveaxis(scores, 1, -1).reshape(-1, 3)
    assert evaluate("cross_entropy", {"y": scores}, labels=labels) == pytest.approx(
        evaluate("cross_entropy", {"y": rows}, labels=labels.ravel())
    )
    odds = np.exp(RNG.standard_normal((2, 5, 9)))
    odds /= odds.sum(axis=-1, keepdims=True)
    found = evaluate("cross_entropy", {"y": odds}, labels=(labels := RNG.integers(0, 9, (2, 5))))
    assert found == pytest.approx(-np.log(np.take_along_axis(odds, labels[..., None], -1)).mean())


def test_nmse_by_hand() -> None:
    wanted = np.array([[3.0, 4.0]])
    assert evaluate("nmse", {"y": np.array([[3.0, 5.0]])}, labels=wanted) == pytest.approx(1 / 25)
    assert evaluate("nmse", {"y": np.full((1, 2), np.nan)}, labels=wanted) == 1e20
    images = np.full((1, 2), 200, dtype=np.uint8)
    assert evaluate("nmse", {"y": np.full((1, 2), 220.0)}, labels=images) == pytest.approx(0.01)
    with pytest.raises(ConvkitError, match=r"the output is \[1, 3\], the labels are \[1, 2\]"):
        evaluate("nmse", {"y": np.ones((1, 3))}, labels=wanted)
    with pytest.raises(ConvkitError, match="all zero"):
        evaluate("nmse", {"y": wanted}, labels=0 * wanted)


def test_scores_that_are_no_numbers_cost_as_much_as_is_told() -> None:
    broken = np.array([[np.nan, 0.0], [0.0, 0.0]])
    found = evaluate("cross_entropy", {"y": broken}, {"y": np.zeros((2, 2))}, np.array([1, 1]))
    assert found == pytest.approx((87.34 + np.log(2)) / 2, abs=0.01)


def test_positions_of_a_segmentation() -> None:
    scores = RNG.standard_normal((2, 3, 4, 4))
    labels = scores.argmax(axis=1)
    assert evaluate("top1", {"y": scores}, labels=labels) == 100
    assert evaluate("agreement", {"y": scores}, {"y": scores}) == 100
    assert defaults({"y": scores}, labels) == ("top1", "agreement", "sqnr")


def test_a_text_readers_classes_are_last() -> None:
    odds = np.exp(RNG.standard_normal((2, 5, 9)))
    odds /= odds.sum(axis=-1, keepdims=True)
    other = odds.copy()
    other[0, 0] = np.roll(other[0, 0], 1)
    assert evaluate("agreement", {"y": other}, {"y": odds}) == 90
    assert defaults({"y": odds}) == ("agreement", "sqnr")


@pytest.mark.parametrize("name", ["top1", "top5", "agreement"])
def test_nan_never_counts_as_right(name: str) -> None:
    broken = {"y": np.full_like(SCORES, np.nan)}
    assert evaluate(name, broken, broken, LABELS) == 0


@pytest.mark.parametrize("name", ["sqnr", "psnr"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_the_worst_noise(name: str, bad: float) -> None:
    broken = SCORES.copy()
    broken[:, 0] = bad
    assert evaluate(name, {"y": broken}, OUT) == -200


def test_a_collapsed_network_is_seen() -> None:
    dead = {"y": np.zeros_like(SCORES)}
    assert evaluate("agreement", dead, OUT) < 30
    assert evaluate("sqnr", dead, OUT) == pytest.approx(0)
    assert evaluate("sqnr", OUT, dead) == -200


@given(st.floats(1e-3, 1e3))
def test_sqnr_by_definition(scale: float) -> None:
    noise = RNG.standard_normal(SCORES.shape) * scale
    want = 10 * math.log10(np.sum(SCORES.astype(float) ** 2) / np.sum(noise**2))
    assert evaluate("sqnr", {"y": SCORES + noise}, OUT) == pytest.approx(want, abs=1e-3)


def test_psnr_by_definition_mean_over_images() -> None:
    target = RNG.random((3, 3, 8, 8)).astype(np.float32)
    image = (target + RNG.standard_normal(target.shape) * 0.05).astype(np.float32)
    want = -10 * np.log10(np.square(target - image).mean(axis=(1, 2, 3)))
    assert evaluate("psnr", {"y": image}, {"y": image}, target) == pytest.approx(np.mean(want), abs=1e-4)
    assert evaluate("psnr", {"y": image}, {"y": target}) == pytest.approx(np.mean(want), abs=1e-4)
    assert defaults({"y": image}, target) == ("psnr", "sqnr")


def test_defaults_follow_outputs_and_labels() -> None:
    assert defaults(OUT, LABELS) == ("top1", "top5", "agreement", "sqnr")
    assert defaults(OUT) == ("agreement", "sqnr")
    assert defaults({"y": SCORES[:, :3]}, LABELS % 3) == ("top1", "agreement", "sqnr")
    assert defaults({"y": SCORES[:, :1]}) == ("psnr", "sqnr")
    assert defaults({"y": RNG.random((2, 3, 8, 8))}) == ("psnr", "sqnr")


def test_another_output_can_be_scored() -> None:
    outputs = {"a": SCORES, "b": -SCORES}
    assert evaluate("top1", outputs, labels=SCORES.argmin(1), output="b") == 100
    with pytest.raises(ConvkitError, match="there is: a, b"):
        evaluate("top1", outputs, labels=LABELS, output="c")


@pytest.mark.parametrize(
    ("name", "outputs", "labels", "words"),
    [
        ("top1", OUT, None, "needs labels"),
        ("sqnr", OUT, LABELS, "original model"),
        ("top1", OUT, LABELS + 5, "the network has 10 classes"),
        ("top1", OUT, LABELS[:3], "do not fit"),
        ("top1", OUT, SCORES, "do not fit"),
        ("top5", {"y": SCORES[:, :4]}, LABELS % 4, "has no 6 classes"),
        ("top", OUT, LABELS, "did you mean 'top"),
        ("no_such_module:f", OUT, LABELS, "no_such_module"),
    ],
)
def test_wrong_use_is_refused(name: str, outputs: dict[str, np.ndarray], labels: np.ndarray | None, words: str) -> None:
    with pytest.raises(ConvkitError, match=words):
        evaluate(name, outputs, None, labels)


def test_unlike_shapes_are_refused() -> None:
    for name in ("sqnr", "agreement", "psnr"):
        with pytest.raises(ConvkitError, match=r"\[50, 9\]"):
            evaluate(name, {"y": SCORES[:, :9]}, OUT)


def test_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = "def error(outputs, reference, labels):\n    return abs(outputs['y'] - reference['y']).max()\n"
    module += "error.unit, error.better = 'V', 'lower'\ndef none(outputs, reference, labels):\n    return None\n"
    module += "def fails(outputs, reference, labels):\n    return outputs['z']\n"
    (tmp_path / "own_metric_for_test.py").write_text(module)
    monkeypatch.syspath_prepend(str(tmp_path))
    metric = load("own_metric_for_test:error")
    assert (metric.unit, metric.better, metric.needs) == ("V", "lower", "reference")
    assert evaluate("own_metric_for_test:error", {"y": SCORES + 1}, OUT) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ConvkitError, match="one number"):
        evaluate("own_metric_for_test:none", OUT, OUT)
    with pytest.raises(ConvkitError, match=r"KeyError: 'z' \(.*own_metric_for_test.py:7\)"):
        evaluate("own_metric_for_test:fails", OUT, OUT)
