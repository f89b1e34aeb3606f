"""Windows and coordinates of any geometry, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper
from torch import Tensor

from convkit.compress import ops

SIZE = (7, 6, 5)
OPSET = 21


def _onnxruntime(
    kind: str, inputs: dict[str, np.ndarray], attributes: dict[str, Any], names: Sequence[str] = ("x",)
) -> np.ndarray:
    import onnxruntime

    graph = helper.make_graph(
        [helper.make_node(kind, list(names), ["y"], **attributes)],
        "net",
        [
            helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for k, v in inputs.items()
        ],
        [helper.make_tensor_value_info("y", 1, None)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, inputs)[0]
    return result


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


WINDOW = st.fixed_dictionaries(
    {
        "rank": st.integers(1, 3),
        "kernel": st.integers(1, 4),
        "stride": st.integers(1, 3),
        "dilation": st.integers(1, 2),
        "pads": st.lists(st.integers(0, 3), min_size=6, max_size=6),
        "ceil_mode": st.integers(0, 1),
        "include": st.integers(0, 1),
    }
)


@settings(max_examples=60)
@given(WINDOW, st.sampled_from(["MaxPool", "AveragePool", "LpPool"]))
def test_pooling(window: dict[str, Any], kind: str) -> None:
    rank, kernel = window["rank"], window["kernel"]
    reach = (kernel - 1) * window["dilation"] + 1
    pads = [p % kernel for p in window["pads"][: 2 * rank]]
    assume(all(pads[i] + pads[rank + i] + SIZE[i] >= reach for i in range(rank)))
    attributes = {
        "kernel_shape": [kernel] * rank,
        "strides": [window["stride"]] * rank,
        "dilations": [window["dilation"]] * rank,
        "pads": pads,
        "ceil_mode": window["ceil_mode"],
        **({"count_include_pad": window["include"]} if kind == "AveragePool" else {}),
    }
    x = _normal(2, 3, *SIZE[:rank])
    expected = _onnxruntime(kind, {"x": x}, attributes)
    # A window of nothing but padding has no mean and no maximum: engines disagree, networks never ask.
    assume(np.isfinite(expected).all() and (np.abs(expected) < 1e30).all())
    function = ops.find(kind)
    assert function is not None
    _assert_close(function(torch.from_numpy(x), **attributes), expected)


RESIZE = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["nearest", "linear", "cubic"]),
        "coordinate_transformation_mode": st.sampled_from(
            ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric"]
        ),
        "nearest_mode": st.sampled_from(["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]),
        "height": st.integers(1, 20),
        "width": st.integers(1, 20),
    }
)


@settings(max_examples=60)
@given(RESIZE)
def test_resize(setting: dict[str, Any]) -> None:
    sizes = np.array([1, 2, setting.pop("height"), setting.pop("width")], np.int64)
    x = _normal(1, 2, 6, 5)
    expected = _onnxruntime("Resize", {"x": x, "sizes": sizes}, setting, ["x", "", "", "sizes"])
    function = ops.find("Resize")
    assert function is not None
    _assert_close(function(torch.from_numpy(x), None, None, torch.from_numpy(sizes), **setting), expected)


@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
@pytest.mark.parametrize("places", ["half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric"])
def test_the_nearest_is_the_same_one_to_the_last_bit(places: str, rounding: str) -> None:
    """Places meet whole numbers and halves, where the last bit of float32 decides which neighbour is nearest."""
    function = ops.find("Resize")
    assert function is not None
    how = {"mode": "nearest", "coordinate_transformation_mode": places, "nearest_mode": rounding}
    for rows, columns in ((9, 12), (7, 14), (45, 31), (27, 29)):
        x = np.arange(rows * columns, dtype=np.float32).reshape(1, 1, rows, columns)
        for factor in (1 / 3, 0.7, 1.3, 2.5, 7):
            scales = np.array([1, 1, factor, factor], np.float32)
            sizes = np.array([1, 1, rows * 7 // 3, columns * 4 // 7], np.int64)
            by_scales = _onnxruntime("Resize", {"x": x, "scales": scales}, how, ["x", "", "scales"])
            by_sizes = _onnxruntime("Resize", {"x": x, "sizes": sizes}, how, ["x", "", "", "sizes"])
            ours = [function(torch.from_numpy(x), None, torch.from_numpy(scales), None, **how)]
            ours += [function(torch.from_numpy(x), None, None, torch.from_numpy(sizes), **how)]
            for found, wanted in zip(ours, (by_scales, by_sizes), strict=True):
                np.testing.assert_array_equal(found.numpy(), wanted)


def _assert_close(ours: Tensor, expected: np.ndarray) -> None:
    torch.testing.assert_close(ours, torch.from_numpy(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize_passes_gradients(mode: str) -> None:
    function = ops.find("Resize")
    assert function is not None
    x = torch.randn(1, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    sizes = torch.tensor([1, 1, 5, 3])
    assert torch.autograd.gradcheck(lambda t: function(t, None, None, sizes, mode=mode), (x,))


def test_of_equals_the_first_comes_first() -> None:
    function = ops.find("TopK")
    assert function is not None
    values, indices = function(torch.tensor([[1.0, 3.0, 3.0, 3.0, 2.0]]), torch.tensor([2]))
    assert values.tolist() == [[3.0, 3.0]]
    assert indices.tolist() == [[1, 2]]
