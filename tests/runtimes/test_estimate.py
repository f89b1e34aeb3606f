"""Laws of the statistics."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from convkit.runtimes.bench import estimate
from convkit.runtimes.bench.block import Block
from convkit.runtimes.bench.rounds import Rounds

seconds = st.floats(1e-6, 10)
medians = st.integers(2, 30).flatmap(lambda n: hnp.arrays(np.float64, (n,), elements=seconds))
pairs = st.integers(2, 30).flatmap(lambda n: hnp.arrays(np.float64, (2, n), elements=seconds))


@st.composite
def rounds(draw: st.DrawFn) -> Rounds:
    """A few rounds of two candidates, blocks of any length."""
    block = st.lists(seconds, min_size=1, max_size=8).map(lambda calls: Block(np.array(calls), 1, steady=True))
    return tuple(draw(st.lists(st.tuples(block, block), min_size=2, max_size=8)))


def scaled(found: Rounds, factor: float, candidate: int | None = None) -> Rounds:
    """Every call of one candidate (or of all) takes `factor` times as long."""
    factors = [factor if candidate in (None, index) else 1.0 for index in range(2)]
    return tuple(
        tuple(Block(block.seconds * factors[index], 1, steady=True) for index, block in enumerate(blocks))
        for blocks in found
    )


@given(medians)
def test_the_ratio_to_itself_is_one(found: np.ndarray) -> None:
    ratio = estimate.paired_ratio(found, found, seed=0)
    assert (ratio.value, ratio.low, ratio.high) == (1, 1, 1)


@given(pairs, st.sampled_from([0.25, 0.5, 2.0, 1024.0]))
def test_the_ratio_scales_with_the_candidate(found: np.ndarray, factor: float) -> None:
    plain = estimate.paired_ratio(found[0], found[1], seed=3)
    longer = estimate.paired_ratio(found[0] * factor, found[1], seed=3)
    both = estimate.paired_ratio(found[0] * factor, found[1] * factor, seed=3)
    for key in ("value", "low", "high"):
        assert getattr(longer, key) == pytest.approx(factor * getattr(plain, key), rel=1e-9)
        assert getattr(both, key) == pytest.approx(getattr(plain, key), rel=1e-9)


@given(medians, st.floats(0.5, 2), st.randoms(use_true_random=False))
def test_common_drift_cancels(found: np.ndarray, ratio: float, random: np.random.Generator) -> None:
    drift = np.array([random.uniform(0.2, 5) for _ in found])
    interval = estimate.paired_ratio(found * ratio * drift, found * drift, seed=0)
    assert interval.low == pytest.approx(ratio)
    assert interval.high == pytest.approx(ratio)


@given(pairs)
def test_the_value_lies_in_its_interval(found: np.ndarray) -> None:
    interval = estimate.paired_ratio(found[0], found[1], seed=1)
    assert interval.low <= interval.value <= interval.high


@settings(max_examples=40)
@given(rounds())
def test_statistics_of_a_run(found: Rounds) -> None:
    times, ratios = estimate.statistics(found, 0, 1, seed=5)
    calls = np.concatenate([blocks[0].seconds for blocks in found])
    assert times["p50"].value <= times["p90"].value <= times["p99"].value <= calls.max()
    assert times["mean"].value == pytest.approx(calls.mean())
    # numpy's own inverted CDF is the definition that is meant.
    for key, share in estimate.QUANTILES.items():
        assert times[key].value == pytest.approx(np.quantile(calls, share, method="inverted_cdf"))
    for interval in (*times.values(), *ratios.values()):
        assert interval.low <= interval.value <= interval.high


@settings(max_examples=40)
@given(rounds(), st.sampled_from([0.5, 2.0, 8.0]))
def test_statistics_scale(found: Rounds, factor: float) -> None:
    times, ratios = estimate.statistics(found, 0, 1, seed=5)
    slow_times, slow_ratios = estimate.statistics(scaled(found, factor, candidate=0), 0, 1, seed=5)
    all_times, all_ratios = estimate.statistics(scaled(found, factor), 0, 1, seed=5)
    for key in times:
        assert slow_times[key].high == pytest.approx(factor * times[key].high)
        assert slow_ratios[key].low == pytest.approx(factor * ratios[key].low)
        assert all_times[key].value == pytest.approx(factor * times[key].value)
        assert all_ratios[key].high == pytest.approx(ratios[key].high)


@given(rounds())
def test_the_baseline_is_one(found: Rounds) -> None:
    _, ratios = estimate.statistics(found, 1, 1, seed=2)
    assert all((ratio.low, ratio.value, ratio.high) == (1, 1, 1) for ratio in ratios.values())


def test_intervals_cover_the_truth() -> None:
    """Counted on independent log-normal rounds: a 95 % interval holds the true ratio in about 95 of 100 runs."""
    random = np.random.default_rng(7)
    held = 0
    for trial in range(300):
        logs = random.normal(np.log(1.05), 0.02, size=40)
        interval = estimate.paired_ratio(np.exp(logs), np.ones(40), seed=trial)
        held += interval.low <= 1.05 <= interval.high
    assert 0.91 <= held / 300 <= 0.985
