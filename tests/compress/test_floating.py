"""Laws of floating-point formats, against every code by definition and ml_dtypes, bit for bit."""

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from convkit.compress import format as formats
from convkit.compress import parts
from convkit.compress.floating import Floating

EXMY = ["e1m2", "e2m1", "e2m3", "e2m5", "e3m1", "e3m2", "e3m3", "e3m4", "e4m3", "e5m2", "e5m10", "e7m1"]
FLOATS = [name for name in parts.names("compress/formats") if isinstance(formats.load(name), Floating)] + EXMY
every_float = pytest.mark.parametrize("name", FLOATS)

values = arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(-100, 100, width=32))
ONE = torch.tensor(1.0)
NONE = torch.tensor(0.0)


def floating(name: str) -> Floating:
    number = formats.load(name)
    assert isinstance(number, Floating)
    return number


def grid(number: Floating) -> np.ndarray:
    """Every number of the format at scale 1 without sign, from its definition."""
    codes = np.arange(2 ** (number.exponent + number.mantissa))
    exponent, fraction = codes >> number.mantissa, (codes & (2**number.mantissa - 1)) / 2**number.mantissa
    bias = 2 ** (number.exponent - 1) - 1
    normal = 2.0 ** (exponent - bias) * (1 + fraction)
    found = np.where(exponent == 0, 2.0 ** (1 - bias) * fraction, normal)
    return found[found <= number.largest]


def nearest(number: Floating, x: np.ndarray) -> np.ndarray:
    """Ties to the even code, beyond the last saturated, by looking at every code."""
    every = grid(number)
    middles = (every[1:] + every[:-1]) / 2
    above, below = np.searchsorted(middles, np.abs(x), "right"), np.searchsorted(middles, np.abs(x), "left")
    return np.copysign(every[np.where(above % 2 == 0, above, below)], x).astype(np.float32)


def bits(x: np.ndarray | torch.Tensor) -> list[str]:
    """Numbers with their sign, so that -0 is not 0."""
    return [float(value).hex() for value in np.asarray(x, np.float64).ravel()]


def every_half(number: Floating) -> np.ndarray:
    """All numbers of a format, everything halfway between two of them, and what lies a float32 beside those."""
    positive = grid(number)
    points = np.concatenate([positive, (positive[1:] + positive[:-1]) / 2, positive[-1:] * [1.04, 1.08, 2, 1e9]])
    points = points.astype(np.float32)
    around = np.concatenate([points, np.nextafter(points, np.float32(np.inf)), np.nextafter(points, np.float32(0))])
    return np.concatenate([around, -around])


@every_float
@given(x=values, peak=st.floats(2**-7, 100, width=32))
def test_the_error_of_a_float_is_relative_until_it_is_subnormal(name: str, x: np.ndarray, peak: float) -> None:
    number = floating(name)
    scale, zero = number.parameters(torch.tensor(-peak), torch.tensor(peak))
    inside = torch.from_numpy(x).clamp(-peak, peak)
    error = (number.fake(inside, scale, zero) - inside).abs()
    half = 2.0 ** -(number.mantissa + 1)
    assert bool(
        (error <= torch.maximum(inside.abs(), number.least * scale) * half * (1 + 1e-5) + 1e-6 * inside.abs()).all()
    )


@every_float
def test_floats_are_the_nearest_of_all_codes(name: str) -> None:
    """At every number, every tie and both sides of each; signed zero included."""
    number = floating(name)
    x = every_half(number)
    assert bits(number.fake(torch.from_numpy(x), ONE, NONE)) == bits(nearest(number, x))
    assert number.bits == 1 + number.exponent + number.mantissa


ML_DTYPES = {
    "fp8_e4m3": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
    "fp4_e2m1": ml_dtypes.float4_e2m1fn,
    "e2m1": ml_dtypes.float4_e2m1fn,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e3m2": ml_dtypes.float6_e3m2fn,
}


@pytest.mark.parametrize("name", ML_DTYPES)
def test_floats_are_those_of_ml_dtypes(name: str) -> None:
    number, kind = floating(name), ML_DTYPES[name]
    x = every_half(number).clip(-number.largest, number.largest)
    assert bits(number.fake(torch.from_numpy(x), ONE, NONE)) == bits(x.astype(kind))
    info = ml_dtypes.finfo(kind)
    assert (number.largest, number.least, number.bits) == (float(info.max), float(info.smallest_normal), info.bits)
    codes = number.codes(torch.from_numpy(x), ONE, NONE)
    assert codes.dtype == number.dtype()
    assert bits(codes.double()) == bits(x.astype(kind))


@pytest.mark.parametrize(("name", "kind"), [("bf16", ml_dtypes.bfloat16), ("fp16", np.float16), ("fp32", np.float32)])
@given(pattern=arrays.arrays(np.uint32, 50))
def test_casts_are_those_of_ml_dtypes(name: str, kind: type, pattern: np.ndarray) -> None:
    x = pattern.view(np.float32)
    assume(not np.isnan(x).any())
    with np.errstate(over="ignore"):
        wanted = x.astype(kind)
    assert bits(formats.load(name).fake(torch.from_numpy(x), ONE, NONE)) == bits(wanted)


def test_saturation_at_448_is_not_the_480_of_all_codes() -> None:
    x = torch.tensor([440.0, 464.0, 472.0, 480.0, 1e9, -1e9])
    assert formats.load("fp8_e4m3").fake(x, ONE, NONE).tolist() == [448, 448, 448, 448, 448, -448]
    assert formats.load("e4m3").fake(x, ONE, NONE).tolist() == [448, 448, 480, 480, 480, -480]


@every_float
@given(x=values, power=st.integers(-20, 20), factor=st.floats(0.01, 100))
def test_a_bias_is_a_scale(name: str, x: np.ndarray, power: int, factor: float) -> None:
    """Q_b(x) = s Q_b0(x / s): with a bias of its own, as its definition has it, and with a power of two exactly."""
    number = floating(name)
    wide = torch.from_numpy(x).double()
    largest = number.largest * factor
    bias = 2.0**number.exponent - np.log2(largest) + np.log2(2 - 2.0**-number.mantissa) - 1
    clipped = wide.clamp(-largest, largest)
    exponent = (torch.floor(torch.log2(clipped.abs()) + bias)).clamp(min=1)
    step = 2.0 ** (exponent - number.mantissa - bias)
    direct = torch.round(clipped / step) * step
    scaled = number.fake(wide, torch.tensor(factor, dtype=torch.float64), NONE.double())
    tie = ((clipped / step).remainder(1) - 0.5).abs() < 1e-6
    if number.largest == floating(f"e{number.exponent}m{number.mantissa}").largest:
        assert torch.allclose(direct[~tie], scaled[~tie], rtol=1e-9, atol=0)
    two = torch.tensor(2.0**power)
    assert torch.equal(
        number.fake(torch.from_numpy(x) * two, two, NONE), number.fake(torch.from_numpy(x), ONE, NONE) * two
    )


def test_small_floats_are_numbers_of_larger_ones() -> None:
    """E2M1 and the 5- to 7-bit formats are exactly E4M3's numbers, E1 is the integers'; E3M4 is not."""
    e4m3 = set(grid(floating("fp8_e4m3")))
    for name in ("fp4_e2m1", "e2m1", "e2m2", "e2m3", "e3m1", "e3m2", "e3m3", "e1m2"):
        assert set(grid(floating(name))) <= e4m3, name
        assert formats.load(name).storage == "float8_e4m3fn", name
    assert not set(grid(floating("e3m4"))) <= e4m3
    assert np.array_equal(grid(floating("e1m2")) * 2, np.arange(8))
    assert np.array_equal(grid(floating("fp4_e2m1")), [0, 0.5, 1, 1.5, 2, 3, 4, 6])


@every_float
def test_the_type_that_holds_the_codes_has_every_one(name: str) -> None:
    number = floating(name)
    every = torch.from_numpy(np.concatenate([grid(number), -grid(number)]).astype(np.float32))
    assert torch.equal(number.codes(every, ONE, NONE).float(), every)


def snr(name: str, x: torch.Tensor) -> float:
    """Signal to noise in dB at the best range of the search: fractions 0.1 to 1.2 of the largest magnitude."""
    number, peak = formats.load(name), x.abs().max()
    noise = []
    for fraction in torch.linspace(0.1, 1.2, 111):
        scale, zero = number.parameters(-peak * fraction, peak * fraction)
        noise.append(float((number.fake(x, scale, zero) - x).square().sum()))
    return float(10 * torch.log10(x.square().sum() / min(noise)))


GAUSSIAN = {
    "int8": 40.5,
    "e2m5": 42.7,
    "e3m4": 37.6,
    "e4m3": 31.6,
    "e5m2": 25.6,
    "int6": 29.7,
    "e2m3": 30.8,
    "e3m2": 25.6,
    "int4": 19.2,
    "e1m2": 18.8,
    "e2m1": 18.9,
}


@pytest.mark.parametrize("name", GAUSSIAN)
def test_signal_to_noise_of_normal_numbers(name: str) -> None:
    x = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    assert snr(name, x) == pytest.approx(GAUSSIAN[name], abs=0.15)


@pytest.mark.parametrize(("integer", "floating"), [("int8", "e3m4"), ("int6", "e3m2"), ("int4", "fp4_e2m1")])
def test_heavy_tails_reverse_it(integer: str, floating: str) -> None:
    """Student's t with three degrees of freedom."""
    torch.manual_seed(0)
    x = torch.distributions.StudentT(3.0).sample((100_000,))
    assert snr(floating, x) > snr(integer, x) + 1
