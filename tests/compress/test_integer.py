"""Every kernel against the engine it follows: ONNX Runtime's own fused kernel, code for code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from convkit.compress import integer
from tests import here

U8, S8 = np.dtype(np.uint8), np.dtype(np.int8)
FUSED = {
    "Conv": "QLinearConv",
    "Gemm": "QGemm",
    "MatMul": "QLinearMatMul",
    "Add": "QLinearAdd",
    "Mul": "QLinearMul",
    "GlobalAveragePool": "QLinearGlobalAveragePool",
    "AveragePool": "QLinearAveragePool",
}
Quantized = tuple[np.ndarray, np.ndarray, np.ndarray]


def scale(draw: Any, typical: float) -> np.ndarray:
    """Often a power of two, so that sums fall on ties between two codes."""
    factor = draw(st.one_of(st.sampled_from([0.25, 0.5, 1.0, 2.0]), st.floats(0.25, 4.0)))
    return np.float32(2.0 ** round(np.log2(typical)) * factor)


def activation(draw: Any, shape: tuple[int, ...], dtype: np.dtype, typical: float = 0.02) -> Quantized:
    limits, rng = np.iinfo(dtype), np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    codes = rng.integers(limits.min, limits.max + 1, shape).astype(dtype)
    return codes, scale(draw, typical), np.array(draw(st.integers(limits.min, limits.max)), dtype)


def weight(draw: Any, shape: tuple[int, ...], axis: int | None) -> Quantized:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    codes = rng.integers(-127, 128, shape).astype(np.int8)
    sizes = () if axis is None else (shape[axis],)
    scales = np.asarray(rng.uniform(0.002, 0.02, sizes), np.float32)
    return codes, scales, np.zeros(sizes, np.int8)


def result(draw: Any, dtype: np.dtype, typical: float) -> tuple[np.ndarray, np.ndarray]:
    limits = np.iinfo(dtype)
    return scale(draw, typical), np.array(draw(st.integers(limits.min, limits.max)), dtype)


def run_engine(
    operator: str,
    inputs: list[Quantized | None],
    y: tuple[np.ndarray, np.ndarray],
    folder: Path,
    axes: Mapping[int, int] | None = None,
    constant: tuple[int, ...] = (1, 2),
    **attributes: Any,
) -> np.ndarray:
    """DequantizeLinear → operator → QuantizeLinear on ONNX Runtime, which must have fused the three."""
    nodes, initializers, graph_inputs, feeds, names = [], [], [], {}, []
    for i, quantized in enumerate(inputs):
        if quantized is None:
            continue
        codes, *parameters = quantized
        for name, array in zip(("s", "z"), parameters, strict=True):
            initializers.append(numpy_helper.from_array(np.asarray(array), f"{name}{i}"))
        if i in constant:
            initializers.append(numpy_helper.from_array(codes, f"q{i}"))
        else:
            kind = helper.np_dtype_to_tensor_dtype(codes.dtype)
            graph_inputs.append(helper.make_tensor_value_info(f"q{i}", kind, codes.shape))
            feeds[f"q{i}"] = codes
        axis = {"axis": axes[i]} if axes and i in axes else {}
        nodes.append(helper.make_node("DequantizeLinear", [f"q{i}", f"s{i}", f"z{i}"], [f"x{i}"], **axis))
        names.append(f"x{i}")
    initializers += [numpy_helper.from_array(np.asarray(a), n) for a, n in zip(y, ("sy", "zy"), strict=True)]
    nodes.append(helper.make_node(operator, names, ["r"], **attributes))
    nodes.append(helper.make_node("QuantizeLinear", ["r", "sy", "zy"], ["y"]))
    kind = helper.np_dtype_to_tensor_dtype(y[1].dtype)
    output = onnx.ValueInfoProto(name="y", type=helper.make_tensor_type_proto(kind, None))
    graph = helper.make_graph(nodes, "g", graph_inputs, [output], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    settings = here.exact()
    settings.optimized_model_filepath = str(folder / "fused.onnx")
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    assert FUSED[operator] in {node.op_type for node in onnx.load(folder / "fused.onnx").graph.node}
    return session.run(None, feeds)[0]


def tensors(quantized: Quantized) -> integer.Codes:
    codes, scales, zero = (torch.from_numpy(np.asarray(array)) for array in quantized)
    return codes, scales, zero


def pair(y: tuple[np.ndarray, np.ndarray]) -> integer.Result:
    return torch.from_numpy(np.asarray(y[0])), torch.from_numpy(np.asarray(y[1]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fused")


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_conv(data: st.DataObject, folder: Path) -> None:
    draw = data.draw
    rank, group = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 2, 4]))
    channels, kernel = 4 * draw(st.sampled_from([1, 2, 8])), draw(st.sampled_from([1, 3]))
    x = activation(draw, (2, channels, *[7] * rank), U8)
    w = weight(draw, (8, channels // group, *[kernel] * rank), draw(st.sampled_from([None, 0])))
    bias = np.random.default_rng(1).integers(-5000, 5000, 8).astype(np.int32)
    b = bias, (x[1] * w[1]).astype(np.float32), np.zeros_like(w[1], np.int32)
    pads = [draw(st.integers(0, 2)) for _ in range(2 * rank)]
    attributes = {"pads": pads, "strides": [draw(st.integers(1, 2))] * rank, "group": group}
    y = result(draw, U8, 0.1 * channels**0.5 * kernel)
    axes = {1: 0, 2: 0}
    got = integer.conv(tensors(x), tensors(w), tensors(b), pair(y), **attributes)
    assert np.array_equal(got.numpy(), run_engine("Conv", [x, w, b], y, folder, axes, **attributes))


@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_conv_whose_sums_leave_float32(data: st.DataObject, folder: Path) -> None:
    x, w = activation(data.draw, (1, 3000, 2, 2), U8), weight(data.draw, (4, 3000, 1, 1), 0)
    b = np.array([2**27, -(2**27), 0, 12345], np.int32), x[1] * w[1], np.zeros(4, np.int32)
    y = result(data.draw, U8, 40.0)
    got = integer.conv(tensors(x), tensors(w), tensors(b), pair(y))
    assert np.array_equal(got.numpy(), run_engine("Conv", [x, w, b], y, folder, {1: 0, 2: 0}))


@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_gemm(data: st.DataObject, folder: Path) -> None:
    draw = data.draw
    transposed, size = draw(st.booleans()), draw(st.sampled_from([5, 64, 300]))
    x = activation(draw, (3, size), U8)
    w = weight(draw, (9, size) if transposed else (size, 9), 0 if transposed else 1)
    b = np.arange(-4000, 5000, 1000, dtype=np.int32), x[1] * w[1], np.zeros(9, np.int32)
    y, axes = result(draw, U8, 0.1 * size**0.5), {1: 0 if transposed else 1, 2: 0}
    got = integer.gemm(tensors(x), tensors(w), tensors(b), pair(y), transB=int(transposed))
    assert np.array_equal(got.numpy(), run_engine("Gemm", [x, w, b], y, folder, axes, transB=int(transposed)))


@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_matmul(data: st.DataObject, folder: Path) -> None:
    x, w = activation(data.draw, (2, 5, 64), U8), weight(data.draw, (64, 9), data.draw(st.sampled_from([None, 1])))
    y = result(data.draw, U8, 0.8)
    got = integer.matmul(tensors(x), tensors(w), pair(y))
    assert np.array_equal(got.numpy(), run_engine("MatMul", [x, w], y, folder, {1: 1}))


def every_pair(draw: Any, dtype: np.dtype) -> tuple[Quantized, Quantized]:
    a, b = activation(draw, (1,), dtype), activation(draw, (1,), dtype)
    codes = np.arange(np.iinfo(dtype).min, np.iinfo(dtype).max + 1).astype(dtype)
    left, right = (grid.reshape(1, 256, 16, 16).copy() for grid in np.meshgrid(codes, codes, indexing="ij"))
    return (left, a[1], a[2]), (right, b[1], b[2])


@pytest.mark.parametrize("dtype", [U8, S8], ids=str)
@pytest.mark.parametrize(("operator", "kernel", "typical"), [("Add", integer.add, 0.02), ("Mul", integer.mul, 0.02)])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_every_pair_of_codes(
    data: st.DataObject, folder: Path, operator: str, kernel: integer.Kernel, typical: float, dtype: np.dtype
) -> None:
    a, b = every_pair(data.draw, dtype)
    y = result(data.draw, dtype, typical)
    got = kernel(tensors(a), tensors(b), pair(y)).numpy()
    assert np.array_equal(got, run_engine(operator, [a, b], y, folder, constant=()))


@pytest.mark.parametrize(("operator", "kernel"), [("Add", integer.add), ("Mul", integer.mul)])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_broadcast_over_space(data: st.DataObject, folder: Path, operator: str, kernel: integer.Kernel) -> None:
    a, b = activation(data.draw, (2, 16, 9, 9), U8), activation(data.draw, (2, 16, 1, 1), U8)
    y = result(data.draw, U8, 0.02)
    got = kernel(tensors(a), tensors(b), pair(y)).numpy()
    assert np.array_equal(got, run_engine(operator, [a, b], y, folder, constant=()))


@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_global_average_pool(data: st.DataObject, folder: Path) -> None:
    size = data.draw(st.sampled_from([1, 3, 7, 14]))
    x, y = activation(data.draw, (2, 20, size, size), U8), result(data.draw, U8, 0.01)
    got = integer.global_average_pool(tensors(x), pair(y)).numpy()
    assert np.array_equal(got, run_engine("GlobalAveragePool", [x], y, folder))


@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_average_pool(data: st.DataObject, folder: Path) -> None:
    draw = data.draw
    x, y = activation(draw, (2, 8, 13, 13), U8), result(draw, U8, 0.01)
    attributes = {
        "kernel_shape": [draw(st.integers(2, 3)), draw(st.integers(2, 5))],
        "strides": [draw(st.integers(1, 2))] * 2,
        "pads": [draw(st.integers(0, 1)) for _ in range(4)],
        "count_include_pad": draw(st.integers(0, 1)),
    }
    got = integer.average_pool(tensors(x), pair(y), **attributes).numpy()
    assert np.array_equal(got, run_engine("AveragePool", [x], y, folder, **attributes))
