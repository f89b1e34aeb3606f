"""Laws of every range calibrator in the folder."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from convkit.compress import format as formats
from convkit.compress import parts
from convkit.compress.calibrator import Calibrator, extremes
from convkit.compress.histogram import Histogram, gather

CALIBRATORS = parts.names("compress/calibrators")
every_calibrator = pytest.mark.parametrize("name", CALIBRATORS)
every_format = pytest.mark.parametrize("number", parts.names("compress/formats"))

tensors = arrays.arrays(np.float32, st.integers(1, 300), elements=st.floats(-50, 50, width=32)).map(torch.from_numpy)


def find(name: str, histogram: Histogram, number: str = "uint8") -> tuple[float, float]:
    part: Calibrator = parts.load("compress/calibrators", name)
    return part.find(histogram, formats.load(number))


def noise(histogram: Histogram, low: float, high: float, number: str) -> float:
    """Squared error of the distribution's bins in the range."""
    chosen = formats.load(number)
    scale, zero = chosen.parameters(torch.tensor(low), torch.tensor(high))
    rounded = chosen.fake(histogram.centres, scale, zero)
    return float((rounded - histogram.centres).square() @ histogram.counts)


@every_calibrator
@every_format
@settings(max_examples=30)
@given(x=tensors)
def test_a_range_holds_zero_and_stays_inside_the_extremes(name: str, number: str, x: torch.Tensor) -> None:
    """But for floats, whose numbers lie better around a tensor at some scales than at others."""
    found = gather(x)
    low, high = find(name, found, number)
    beyond = max(1.0, float(formats.load(number).fractions()[-1]))
    least, most = (end * beyond for end in extremes(found))
    assert least <= low <= 0 <= high <= most


@every_calibrator
@settings(max_examples=30)
@given(x=tensors, power=st.integers(-20, 20))
def test_scaling_the_tensor_scales_the_range(name: str, x: torch.Tensor, power: int) -> None:
    assume(float(x.abs().max()) > 1e-20)
    factor = 2.0**power
    low, high = find(name, gather(x))
    scaled = find(name, gather(x * factor))
    assert scaled == pytest.approx((low * factor, high * factor), rel=1e-5, abs=0)


@every_format
@settings(max_examples=50)
@given(x=tensors)
def test_mse_is_never_worse_than_minmax_by_its_own_error(number: str, x: torch.Tensor) -> None:
    found = gather(x)
    least, most = (noise(found, *find(name, found, number), number) for name in ("mse", "minmax"))
    assert least <= most * (1 + 1e-9) + 1e-30


def test_minmax_is_the_extremes() -> None:
    assert find("minmax", gather(torch.tensor([-3.0, 1.0, 7.5]))) == (-3.0, 7.5)
    assert find("minmax", gather(torch.tensor([2.0, 7.5]))) == (0.0, 7.5)


@pytest.mark.parametrize("name", sorted({*CALIBRATORS} - {"minmax"}))
def test_one_outlier_does_not_decide(name: str) -> None:
    """One among sixty million; 40 times the deviation of the others."""
    normal = torch.randn(60_000, generator=torch.Generator().manual_seed(0))
    found = gather(normal, gather(torch.tensor([40.0])))
    outlier = found.centres > 39
    many = replace(found, counts=torch.where(outlier, found.counts, found.counts * 1000))
    low, high = find(name, many)
    assert 3 <= high < 0.75 * 40
    assert low <= -1


def test_percentile_cuts_one_in_ten_thousand() -> None:
    low, high = find("percentile", gather(torch.linspace(-1, 3, 60_000)))
    assert low == pytest.approx(-1 + 4e-4, abs=2e-3)
    assert high == pytest.approx(3 - 4e-4, abs=2e-3)


@every_calibrator
@every_format
@pytest.mark.parametrize("value", [0.0, 5.0, -0.25, 1e-30])
def test_a_constant_tensor_is_represented(name: str, number: str, value: float) -> None:
    low, high = find(name, gather(torch.full((100,), value)), number)
    chosen = formats.load(number)
    scale, zero = chosen.parameters(torch.tensor(low), torch.tensor(high))
    rounded = float(chosen.fake(torch.tensor(value), scale, zero))
    assert math.isclose(rounded, value, rel_tol=0.01, abs_tol=1e-29)


@every_calibrator
def test_only_positive_numbers_get_no_negative_codes(name: str) -> None:
    low, high = find(name, gather(torch.rand(5000, generator=torch.Generator().manual_seed(0))))
    assert low == 0
    assert 0.3 < high <= 1
