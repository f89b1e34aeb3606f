"""Floats against integers: SQNR on Gaussian and heavy-tailed tensors, and the split of bits that suits each."""

import pytest
import torch
from torch import Tensor

from convkit.compress import format as formats
from convkit.compress import parts, weights, widths
from convkit.compress.calibrator import Calibrator
from convkit.compress.histogram import gather

NUMBERS = 100_000
GAUSSIAN = {
    "int8": 40.5, "e2m5": 42.7, "e3m4": 37.6, "e4m3": 31.6, "e5m2": 25.6,
    "int6": 29.7, "e2m3": 30.8, "e3m2": 25.6,
    "int4": 19.2, "e1m2": 18.8, "e2m1": 18.9,
}  # fmt: skip
"""dB at the best range."""


def gaussian(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def heavy(*shape: int) -> Tensor:
    """Cubes of normal numbers."""
    return gaussian(*shape) ** 3


def as_weight(x: Tensor, name: str) -> Tensor:
    return weights.rounded(x, formats.load(name), "mse", "tensor")


def as_activation(x: Tensor, name: str) -> Tensor:
    part: Calibrator = parts.load("compress/calibrators", "mse")
    number = formats.load(name)
    return number.fake(x, *number.parameters(*(torch.tensor(end) for end in part.find(gather(x), number))))


def sqnr(x: Tensor, rounded: Tensor) -> float:
    return float(10 * torch.log10(x.square().sum() / (rounded - x).square().sum()))


@pytest.mark.parametrize(("name", "expected"), GAUSSIAN.items())
def test_sqnr_of_a_gaussian_tensor(name: str, expected: float) -> None:
    x = gaussian(1, NUMBERS)
    assert sqnr(x, as_weight(x, name)) == pytest.approx(expected, abs=0.3)
    assert sqnr(x, as_activation(x, name)) == pytest.approx(expected, abs=0.4)


@pytest.mark.parametrize(
    ("integer", "floating", "gain"), [("int8", "e3m4", 6), ("int6", "e3m2", 5), ("int4", "e2m1", 1)]
)
def test_floats_win_where_tails_are_heavy(integer: str, floating: str, gain: float) -> None:
    """And lose, or gain nothing, where they are not."""
    for rounded in (as_weight, as_activation):
        x, y = heavy(1, NUMBERS), gaussian(1, NUMBERS)
        assert sqnr(x, rounded(x, floating)) > sqnr(x, rounded(x, integer)) + gain
        assert sqnr(y, rounded(y, floating)) < sqnr(y, rounded(y, integer)) + 0.2


@pytest.mark.parametrize(("bits", "light", "tailed"), [(8, "e2m5", "e3m4"), (6, "e2m3", "e3m2")])
def test_the_tail_decides_the_split(bits: int, light: str, tailed: str) -> None:
    assert widths.of_weight(gaussian(5, 20_000), bits) == light
    assert widths.of_weight(heavy(5, 20_000), bits) == tailed


def test_most_channels_win() -> None:
    mixed = torch.cat([heavy(2, 20_000), gaussian(3, 20_000)])
    assert widths.of_weight(mixed, 8) == "e2m5"
    assert widths.of_weight(mixed[:3], 8) == "e3m4"


def test_every_split_has_all_its_bits() -> None:
    assert widths.splits(4) == ["e1m2", "e2m1"]
    for bits in range(3, 9):
        assert {formats.load(name).bits for name in widths.splits(bits)} == {bits}
    assert [widths.bits(name) for name in ("fp6", "fp32", "fp8_e4m3", "int8")] == [6, None, None, None]
