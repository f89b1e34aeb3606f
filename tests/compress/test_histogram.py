"""A distribution gathered in batches: nothing is lost, whatever their sizes and magnitudes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from convkit.compress.histogram import BINS, Histogram, gather

parts = st.lists(
    st.tuples(
        arrays.arrays(np.float32, st.integers(1, 50), elements=st.floats(-1, 1, width=32)), st.integers(-60, 60)
    ).map(lambda drawn: torch.from_numpy(drawn[0] * np.float32(2.0 ** drawn[1]))),
    min_size=1,
    max_size=6,
)


def gathered(batches: list[torch.Tensor]) -> Histogram:
    found = None
    for batch in batches:
        found = gather(batch, found)
    assert found is not None
    return found


@given(parts)
def test_every_element_is_counted_and_the_extremes_are_exact(batches: list[torch.Tensor]) -> None:
    found, everything = gathered(batches), torch.cat(batches)
    assert found.counts.shape == (BINS,)
    assert float(found.counts.sum()) == everything.numel()
    assert (found.low, found.high) == (float(everything.min()), float(everything.max()))
    used = found.centres[found.counts > 0]
    assert float(used.min()) >= found.low - found.width
    assert float(used.max()) <= found.high + found.width


@given(parts, st.randoms(use_true_random=False))
def test_the_order_of_batches_moves_no_element_by_more_than_a_bin(batches: list[torch.Tensor], random: object) -> None:
    shuffled = list(batches)
    random.shuffle(shuffled)
    one, other = gathered(batches), gathered(shuffled)
    for fraction in (0.1, 0.5, 0.9):
        distance = abs(one.fraction_below(fraction) - other.fraction_below(fraction))
        assert distance <= 2 * max(one.width, other.width)


@given(parts, st.integers(-40, 40))
def test_scaling_by_a_power_of_two_scales_the_bins(batches: list[torch.Tensor], power: int) -> None:
    # In float64's range, so that no element under- or overflows on the way.
    one, other = gathered(batches), gathered([batch * 2.0**power for batch in batches])
    if min(float(b.abs().max()) for b in batches) < 1e-18:
        return  # the least width there is does not scale
    assert torch.equal(one.counts, other.counts)
    assert other.width == pytest.approx(one.width * 2.0**power)


@given(arrays.arrays(np.float32, st.integers(2, 300), elements=st.floats(-50, 50, width=32)), st.floats(0.01, 0.99))
def test_a_quantile_is_numpys_to_a_bin(x: np.ndarray, fraction: float) -> None:
    found = gather(torch.from_numpy(x))
    wanted = np.quantile(x, fraction, method="inverted_cdf")
    assert abs(found.fraction_below(fraction) - wanted) <= found.width * 1.001
    assert found.low <= found.fraction_below(fraction) <= found.high


@pytest.mark.parametrize("value", [0.0, 3.5, -2.0, 1e-45, 3e38])
def test_a_constant_tensor(value: float) -> None:
    found = gather(torch.full((7,), value), gather(torch.full((5,), value)))
    assert float(found.counts.sum()) == 12
    assert found.low == found.high == torch.tensor(value).item()
    assert found.fraction_below(0.5) == found.low


def test_zeros_first_do_not_set_the_width() -> None:
    found = gather(torch.randn(1000), gather(torch.zeros(10)))
    assert found.width < 10 * 2 / BINS
    assert float(found.counts.sum()) == 1010


def test_a_large_tensor_is_sampled_evenly_and_keeps_its_extremes() -> None:
    x = torch.linspace(-1, 1, 1_000_003)
    found = gather(x)
    assert (found.low, found.high) == (-1, 1)
    assert float(found.counts.sum()) < 1 << 17
    assert abs(found.fraction_below(0.25) + 0.5) < 0.01
