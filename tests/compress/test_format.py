"""Laws of every number format, and the onnx reference's QuantizeLinear as the oracle, bit for bit."""

import numpy as np
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
from convkit.compress.format import Format

FORMATS = parts.names("compress/formats")
every_format = pytest.mark.parametrize("name", FORMATS)

ends = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
values = arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(-100, 100, width=32))


def chosen(number: Format, low: float, high: float) -> tuple[torch.Tensor, torch.Tensor]:
    return number.parameters(torch.tensor(low), torch.tensor(high))


def reference(operator: str, *inputs: np.ndarray) -> np.ndarray:
    """What onnx's own evaluator computes."""
    names = ["x", "scale", "zero"][: len(inputs)]
    kinds = [helper.np_dtype_to_tensor_dtype(array.dtype) for array in inputs]
    infos = [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(names, kinds, strict=True)]
    made = helper.make_tensor_value_info("y", kinds[2] if operator == "QuantizeLinear" else kinds[1], None)
    graph = helper.make_graph([helper.make_node(operator, names, ["y"])], "one", infos, [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    return ReferenceEvaluator(model).run(None, dict(zip(names, inputs, strict=True)))[0]


@every_format
@given(low=ends, high=ends)
def test_a_range_has_a_scale_and_an_exact_zero(name: str, low: float, high: float) -> None:
    number = formats.load(name)
    scale, zero = chosen(number, min(low, high), max(low, high))
    assert scale.dtype == torch.float32
    assert 0 < float(scale) < float("inf")
    assert number.low <= float(zero) <= number.high
    assert float(zero) == round(float(zero))
    assert float(number.fake(torch.zeros(()), scale, zero)) == 0
    assert not number.symmetric or float(zero) == 0


@every_format
@given(x=values, low=st.floats(-100, 0, width=32), high=st.floats(0, 100, width=32))
def test_inside_the_range_the_error_is_at_most_half_a_step(name: str, x: np.ndarray, low: float, high: float) -> None:
    number = formats.load(name)
    scale, zero = chosen(number, low, high)
    inside = torch.from_numpy(x).clamp(low, high)
    error = (number.fake(inside, scale, zero) - inside).abs()
    # Dividing by the scale and multiplying again each round once, relative to the value.
    assert bool((error <= scale * 0.5 * (1 + 1e-5) + inside.abs() * 1e-6).all())


@every_format
@given(x=values, low=st.floats(-100, 0, width=32), high=st.floats(0, 100, width=32))
def test_rounding_is_idempotent_monotone_and_bounded(name: str, x: np.ndarray, low: float, high: float) -> None:
    number = formats.load(name)
    scale, zero = chosen(number, low, high)
    once = number.fake(torch.from_numpy(np.sort(x)), scale, zero)
    assert torch.equal(number.fake(once, scale, zero), once)
    assert bool((once.diff() >= 0).all())
    least, most = ((code - zero) * scale for code in (number.low, number.high))
    assert bool(((once >= least) & (once <= most)).all())


@every_format
def test_codes_saturate(name: str) -> None:
    number = formats.load(name)
    scale, zero = chosen(number, -1.0, 1.0)
    far = number.fake(torch.tensor([-1e30, -1e9, 1e9, 1e30]), scale, zero)
    assert far.tolist() == [float((code - zero) * scale) for code in (number.low, number.low, number.high, number.high)]


@every_format
def test_ties_go_to_even(name: str) -> None:
    number = formats.load(name)
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, -2.5])
    zero = torch.tensor(float((number.low + number.high + 1) // 2))
    assert number.fake(x, torch.tensor(1.0), zero).tolist() == [0, 2, 2, 0, -2, -2]


@every_format
@settings(max_examples=60)
@given(x=values, low=st.floats(-100, 0, width=32), high=st.floats(0, 100, width=32))
def test_bit_for_bit_what_onnx_computes(name: str, x: np.ndarray, low: float, high: float) -> None:
    number = formats.load(name)
    scale, zero = chosen(number, low, high)
    assume(float(scale) > 1e-6)  # onnx's evaluator casts codes to int32 before it saturates them
    stored = zero.to(number.dtype()).numpy()
    assert stored.dtype.name == number.storage
    codes = reference("QuantizeLinear", x, scale.numpy(), stored)
    assert codes.dtype.name == number.storage
    wanted = reference("DequantizeLinear", codes, scale.numpy(), stored)
    found = number.fake(torch.from_numpy(x), scale, zero).numpy()
    assert np.array_equal(found + np.float32(0), wanted + np.float32(0))  # -0 is 0


@every_format
def test_a_format_says_what_its_type_holds(name: str) -> None:
    number = formats.load(name)
    info = torch.iinfo(number.dtype())
    assert (info.min, info.max) == (number.low, number.high)
    assert number.bits == info.bits
    assert number.about


@every_format
@pytest.mark.parametrize("peak", [0.0, 1e-45, 1e-38])
def test_a_range_of_nothing_still_has_a_scale(name: str, peak: float) -> None:
    scale, zero = chosen(formats.load(name), -peak, peak)
    assert torch.isfinite(scale)
    assert float(scale) > 0
    assert float(formats.load(name).fake(torch.zeros(()), scale, zero)) == 0


@every_format
def test_the_widest_range_does_not_overflow(name: str) -> None:
    most = torch.finfo(torch.float32).max
    scale, zero = chosen(formats.load(name), -most, most)
    assert torch.isfinite(scale)
    assert float(formats.load(name).fake(torch.zeros(()), scale, zero)) == 0


def test_an_unknown_format_says_which_there_are() -> None:
    with pytest.raises(ConvkitError, match="no format is called 'int9'; did you mean 'int8'"):
        formats.load("int9")
