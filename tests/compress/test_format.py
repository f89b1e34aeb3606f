"""Laws of every number format, and ml_dtypes and the onnx reference as oracles, bit for bit."""

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import helper
from onnx.reference import ReferenceEvaluator

from convkit.compress import format as formats
from convkit.compress import parts
from convkit.compress.errors import ConvkitError
from convkit.compress.floating import Floating
from convkit.compress.format import Format, Integer

FORMATS = parts.names("compress/formats")
EXMY = ["e1m2", "e2m1", "e2m3", "e2m5", "e3m1", "e3m2", "e3m3", "e3m4", "e4m3", "e5m2", "e5m10", "e7m1"]
INTEGERS = [name for name in FORMATS if isinstance(formats.load(name), Integer)]
FLOATS = [name for name in FORMATS if isinstance(formats.load(name), Floating)] + EXMY
SCALED = INTEGERS + FLOATS
NATIVE = [name for name in FORMATS if formats.load(name).native]
every_format = pytest.mark.parametrize("name", FORMATS + EXMY)
every_scaled = pytest.mark.parametrize("name", SCALED)
every_native = pytest.mark.parametrize("name", NATIVE)

ends = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
values = arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(-100, 100, width=32))
lows, highs = st.floats(-100, 0, width=32), st.floats(0, 100, width=32)
ONE = torch.tensor(1.0)
NONE = torch.tensor(0.0)


def chosen(number: Format, low: float, high: float) -> tuple[torch.Tensor, torch.Tensor]:
    return number.parameters(torch.tensor(low), torch.tensor(high))


def limits(number: Format, scale: torch.Tensor, zero: torch.Tensor) -> tuple[float, float]:
    """The smallest and largest number there is."""
    if isinstance(number, Integer):
        return float((number.low - zero) * scale), float((number.high - zero) * scale)
    assert isinstance(number, Floating)
    return float(-number.largest * scale), float(number.largest * scale)


def model(operators: list[str], kind: int) -> bytes:
    """QuantizeLinear, and DequantizeLinear behind it, as a file."""
    infos = [helper.make_tensor_value_info("x", 1, [None]), helper.make_tensor_value_info("scale", 1, [])]
    infos.append(helper.make_tensor_value_info("zero", kind, []))
    nodes = [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"])]
    nodes.append(helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]))
    made = [helper.make_tensor_value_info("q", kind, [None]), helper.make_tensor_value_info("y", 1, [None])]
    graph = helper.make_graph(nodes, "pair", infos, made[2 - len(operators) :])
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    )


def typed(number: Format) -> np.dtype:
    """numpy's type of the codes."""
    return np.dtype(getattr(ml_dtypes, number.storage, None) or number.storage)


@every_scaled
@given(low=ends, high=ends)
def test_a_range_has_a_scale_and_an_exact_zero(name: str, low: float, high: float) -> None:
    number = formats.load(name)
    scale, zero = chosen(number, min(low, high), max(low, high))
    assert scale.dtype == torch.float32
    assert 0 < float(scale) < float("inf")
    if isinstance(number, Integer):
        assert number.low <= float(zero) <= number.high
    assert float(zero) == round(float(zero))
    assert float(number.fake(torch.zeros(()), scale, zero)) == 0
    assert not number.symmetric or float(zero) == 0


@pytest.mark.parametrize("name", INTEGERS)
@given(x=values, low=lows, high=highs)
def test_inside_the_range_the_error_is_at_most_half_a_step(name: str, x: np.ndarray, low: float, high: float) -> None:
    number = formats.load(name)
    scale, zero = chosen(number, low, high)
    inside = torch.from_numpy(x).clamp(low, high)
    error = (number.fake(inside, scale, zero) - inside).abs()
    # Dividing by the scale and multiplying again each round once, relative to the value.
    assert bool((error <= scale * 0.5 * (1 + 1e-5) + inside.abs() * 1e-6).all())


@every_scaled
@given(x=values, low=lows, high=highs)
def test_rounding_is_idempotent_monotone_and_bounded(name: str, x: np.ndarray, low: float, high: float) -> None:
    number = formats.load(name)
    scale, zero = chosen(number, low, high)
    once = number.fake(torch.from_numpy(np.sort(x)), scale, zero)
    assert torch.equal(number.fake(once, scale, zero), once)
    assert bool((once.diff() >= 0).all())
    least, most = limits(number, scale, zero)
    assert bool(((once >= least) & (once <= most)).all())


@every_scaled
def test_numbers_saturate(name: str) -> None:
    number = formats.load(name)
    scale, zero = chosen(number, -1.0, 1.0)
    far = number.fake(torch.tensor([-1e30, -1e9, 1e9, 1e30, -torch.inf, torch.inf]), scale, zero)
    least, most = limits(number, scale, zero)
    assert far.tolist() == [least, least, most, most, least, most]


@pytest.mark.parametrize("name", [name for name in INTEGERS if formats.load(name).bits > 2])
def test_ties_of_integers_go_to_even(name: str) -> None:
    number = formats.load(name)
    assert isinstance(number, Integer)
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, -2.5])
    zero = torch.tensor(float((number.low + number.high + 1) // 2))
    assert number.fake(x, ONE, zero).tolist() == [0, 2, 2, 0, -2, -2]


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("sign", ["int", "uint"])
def test_narrow_integers_are_those_of_ml_dtypes(sign: str, count: int) -> None:
    number, info = formats.load(f"{sign}{count}"), ml_dtypes.iinfo(getattr(ml_dtypes, f"{sign}{count}"))
    assert isinstance(number, Integer)
    assert (number.low, number.high) == (info.min, info.max)


def test_four_bit_integers_are_those_of_onnx() -> None:
    """The onnx reference evaluator, which has the type; x at every quarter of a step."""
    x = np.arange(-12, 12, 0.25).astype(np.float32)
    for name, kind in (("int4", 22), ("uint4", 21)):
        number, zero = formats.load(name), np.zeros((), ml_dtypes.int4 if kind == 22 else ml_dtypes.uint4)
        (wanted,) = ReferenceEvaluator(model(["q"], kind)).run(["q"], {"x": x, "scale": np.float32(1), "zero": zero})
        assert np.array_equal(number.codes(torch.from_numpy(x), ONE, NONE).numpy(), wanted.astype(number.storage)), name


@pytest.mark.parametrize("name", INTEGERS)
def test_narrow_integers_are_codes_of_their_carrier(name: str) -> None:
    number = formats.load(name)
    assert isinstance(number, Integer)
    info = torch.iinfo(number.dtype())
    assert info.min <= number.low < number.high <= info.max
    assert number.high - number.low + 1 == 2**number.bits
    assert number.native == ((info.min, info.max) == (number.low, number.high))
    far = torch.tensor([-1e9, 1e9])
    assert number.codes(far, ONE, NONE).tolist() == [number.low, number.high]


@every_native
@settings(max_examples=60)
@given(x=values, low=lows, high=highs)
def test_bit_for_bit_what_onnx_computes(name: str, x: np.ndarray, low: float, high: float) -> None:
    number = formats.load(name)
    scale, zero = chosen(number, low, high)
    assume(float(scale) > 1e-6)  # onnx's evaluator casts codes to int32 before it saturates them
    stored = zero.numpy().astype(typed(number))
    kind = helper.np_dtype_to_tensor_dtype(stored.dtype)
    given_ = {"x": x, "scale": scale.numpy(), "zero": stored}
    codes, wanted = ReferenceEvaluator(model(["q", "y"], kind)).run(None, given_)
    assert codes.dtype == typed(number)
    found = number.fake(torch.from_numpy(x), scale, zero).numpy()
    assert np.array_equal(found + np.float32(0), wanted + np.float32(0))  # -0 is 0
    mine = number.codes(torch.from_numpy(x), scale, zero).float().numpy()
    assert np.array_equal(mine, codes.astype(np.float32))


@pytest.fixture(scope="module", params=NATIVE)
def engine(request: pytest.FixtureRequest) -> tuple[Format, onnxruntime.InferenceSession]:
    number = formats.load(request.param)
    kind = helper.np_dtype_to_tensor_dtype(typed(number))
    return number, onnxruntime.InferenceSession(model(["y"], kind), providers=["CPUExecutionProvider"])


@given(x=values, low=lows, high=st.floats(0.125, 100, width=32))
def test_bit_for_bit_what_onnx_runtime_computes(
    engine: tuple[Format, onnxruntime.InferenceSession], x: np.ndarray, low: float, high: float
) -> None:
    number, session = engine
    scale, zero = chosen(number, low, high)
    stored = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
        zero.numpy().astype(typed(number)).reshape(()), helper.np_dtype_to_tensor_dtype(typed(number))
    )
    given_ = {"x": x, "scale": scale.numpy()}
    values_ = {key: onnxruntime.OrtValue.ortvalue_from_numpy(value) for key, value in given_.items()}
    (wanted,) = session.run_with_ort_values(None, {**values_, "zero": stored})
    found = number.fake(torch.from_numpy(x), scale, zero).numpy()
    assert np.array_equal(found + np.float32(0), wanted.numpy() + np.float32(0))


@every_format
def test_a_format_says_what_it_takes(name: str) -> None:
    number = formats.load(name)
    assert number.about
    assert number.bits <= number.dtype().itemsize * 8
    assert number.filed_bytes(0) == 0
    filed = 8 if number.bits == 7 else number.bits
    assert number.filed_bytes(1000, 10) == -(-1000 * filed // 8) + (40 if number.ranged else 0)
    fractions = number.fractions()
    assert bool((fractions.diff() > 0).all())
    assert bool((fractions > 0).all())


@every_scaled
@pytest.mark.parametrize("peak", [0.0, 1e-45, 1e-38])
def test_a_range_of_nothing_still_has_a_scale(name: str, peak: float) -> None:
    scale, zero = chosen(formats.load(name), -peak, peak)
    assert torch.isfinite(scale)
    assert float(scale) > 0
    assert float(formats.load(name).fake(torch.zeros(()), scale, zero)) == 0


@every_scaled
def test_the_widest_range_does_not_overflow(name: str) -> None:
    most = torch.finfo(torch.float32).max
    scale, zero = chosen(formats.load(name), -most, most)
    assert torch.isfinite(scale)
    assert float(formats.load(name).fake(torch.zeros(()), scale, zero)) == 0


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("int9", "no format is called 'int9'; did you mean 'int8'"),
        ("fp8_e4m4", "no format is called 'fp8_e4m4'; did you mean 'fp8_e4m3'"),
        ("bfloat16", "no format is called 'bfloat16'; did you mean 'bf16'"),
        ("e0m3", "no format is called 'e0m3'; 1 to 7 exponent bits and 1 to 10 mantissa bits, such as e3m4"),
        ("e9m9", "no format is called 'e9m9'"),
    ],
)
def test_an_unknown_format_says_which_there_are(name: str, told: str) -> None:
    with pytest.raises(ConvkitError) as raised:
        formats.load(name)
    assert told in str(raised.value)
