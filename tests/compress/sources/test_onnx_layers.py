"""Layers: what becomes a module, under which name, with which geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from convkit.compress.model import ModelRef, load, parse_shape
from convkit.compress.sources import onnx as source
from tests.compress.sources.onnx_peer import (
    assert_like_onnxruntime,
    graph,
    loaded_like_onnxruntime,
    normal,
    operators,
    saved,
    weights,
)

node = helper.make_node


def test_layer_is_named_after_its_weight(tmp_path: Path) -> None:
    held = weights(block__0__conv__weight=normal(4, 3, 3, 3), block__0__conv__bias=normal(4))
    nodes = [node("Conv", ["x", "block.0.conv.weight", "block.0.conv.bias"], ["y"], name="/elsewhere/Conv")]
    model = loaded_like_onnxruntime(graph(nodes, {"x": ["N", 3, 8, 8]}, ["y"], held), tmp_path)
    layer = model.graph.get_submodule("block.0.conv")
    assert isinstance(layer, torch.nn.Conv2d)
    assert [n.meta["layer"] for n in model.graph.graph.nodes if n.op == "call_module"] == ["block.0.conv"]
    assert [n.meta["value"] for n in model.graph.graph.nodes if n.op == "call_module"] == ["y"]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/features/features.0/Conv_1", "features.0"),
        ("Conv_17", "Conv_17"),
        ("", "conv_0"),
        ("/train/Conv", "train_2"),
        ("/graph/Conv", "graph_2"),
        ('a"; import os #/Conv', "a_import_os_"),
    ],
)
def test_layer_is_named_after_its_node_otherwise(tmp_path: Path, name: str, path: str) -> None:
    nodes = [node("Conv", ["x", "w"], ["y"], name=name)]
    model = loaded_like_onnxruntime(graph(nodes, {"x": [1, 3, 8, 8]}, ["y"], weights(w=normal(4, 3, 1, 1))), tmp_path)
    assert [n.target for n in model.graph.graph.nodes if n.op == "call_module"] == [path]


def test_layers_of_one_weight_share_its_parameter(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "c.weight"], ["m"]), node("Conv", ["m", "c.weight"], ["y"])]
    model = loaded_like_onnxruntime(
        graph(nodes, {"x": [1, 3, 8, 8]}, ["y"], weights(c__weight=normal(3, 3, 1, 1))), tmp_path
    )
    first, second = (model.graph.get_submodule(name) for name in ("c", "c_2"))
    assert first.weight is second.weight


def test_asymmetric_pads_stand_before_the_layer(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "w"], ["y"], pads=[0, 1, 2, 3], strides=[2, 2], name="stem")]
    model = loaded_like_onnxruntime(graph(nodes, {"x": [1, 3, 9, 8]}, ["y"], weights(w=normal(4, 3, 3, 3))), tmp_path)
    assert operators(model) == ["Pad", "Conv2d"]
    values = [n.meta["value"] for n in model.graph.graph.nodes if "value" in n.meta]
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
def test_auto_pad_becomes_numbers_where_sizes_are_fixed(tmp_path: Path, mode: str, stride: int) -> None:
    nodes = [node("Conv", ["x", "w"], ["y"], auto_pad=mode, strides=[stride, stride])]
    model = loaded_like_onnxruntime(graph(nodes, {"x": [1, 3, 9, 8]}, ["y"], weights(w=normal(4, 3, 4, 3))), tmp_path)
    assert operators(model)[-1] == "Conv2d"


def test_auto_pad_becomes_numbers_though_the_batch_is_free(tmp_path: Path) -> None:
    """As TensorFlow writes it: channels last, turned around before each convolution."""
    turned = node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])
    nodes = [turned, node("Conv", ["t", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])]
    proto = graph(nodes, {"x": ["N", 9, 8, 3]}, ["y"], weights(w=normal(4, 3, 3, 3)))
    model = loaded_like_onnxruntime(proto, tmp_path)
    assert operators(model)[-1] == "Conv2d"
    assert_like_onnxruntime(model, saved(proto, tmp_path), {"x": torch.randn(3, 9, 8, 3)})


def test_auto_pad_follows_the_inputs_not_what_is_noted_between(tmp_path: Path) -> None:
    """Tools that change an input's size leave the sizes of other tensors in the file as they were."""
    held = weights(v=normal(3, 3, 1, 1), w=normal(4, 3, 3, 3))
    nodes = [node("Conv", ["x", "v"], ["t"]), node("Conv", ["t", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])]
    proto = graph(nodes, {"x": [1, 3, 8, 8]}, ["y"], held)
    proto.graph.value_info.append(helper.make_tensor_value_info("t", 1, [1, 3, 9, 9]))
    loaded_like_onnxruntime(proto, tmp_path)


def test_auto_pad_of_a_free_size_stays_an_operator(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])]
    proto = graph(nodes, {"x": [1, 3, "H", "W"]}, ["y"], weights(w=normal(4, 3, 3, 3)))
    model = loaded_like_onnxruntime(proto, tmp_path)
    assert operators(model) == ["Conv"]
    for size in (7, 8):
        assert_like_onnxruntime(model, saved(proto, tmp_path), {"x": torch.randn(1, 3, size, size)})


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"transB": 1},
        {"alpha": 0.5, "beta": 2.0},
        {"transA": 1, "transB": 1, "alpha": 0.25},
    ],
)
@pytest.mark.parametrize("bias", [(5,), (1, 5), (1,), (), None])
def test_gemm_becomes_linear(tmp_path: Path, attributes: dict[str, float], bias: tuple[int, ...] | None) -> None:
    weight = normal(5, 4) if attributes.get("transB") else normal(4, 5)
    held = weights(fc__weight=weight, **({} if bias is None else {"fc__bias": normal(*bias, seed=1)}))
    nodes = [node("Gemm", ["x", "fc.weight", *([] if bias is None else ["fc.bias"])], ["y"], **attributes)]
    shape = [4, 3] if attributes.get("transA") else [3, 4]
    model = loaded_like_onnxruntime(graph(nodes, {"x": shape}, ["y"], held), tmp_path)
    assert isinstance(model.graph.get_submodule("fc"), torch.nn.Linear)
    assert operators(model)[-1] == "Linear"


def test_gemm_that_adds_a_matrix_stays_an_operator(tmp_path: Path) -> None:
    held = weights(w=normal(4, 5), c=normal(3, 5))
    model = loaded_like_onnxruntime(graph([node("Gemm", ["x", "w", "c"], ["y"])], {"x": [3, 4]}, ["y"], held), tmp_path)
    assert operators(model) == ["Gemm"]


def test_matmul_takes_the_bias_that_follows(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["product"]), node("Add", ["head.bias", "product"], ["y"])]
    held = weights(w=normal(4, 5), head__bias=normal(5))
    model = loaded_like_onnxruntime(graph(nodes, {"x": [2, 3, 4]}, ["y"], held), tmp_path)
    assert operators(model) == ["Linear"]
    assert [n.meta["value"] for n in model.graph.graph.nodes if n.target == "head"] == ["y"]


def test_matmul_that_others_read_keeps_its_value(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["product"]),
        node("Add", ["product", "b"], ["sum"]),
        node("Mul", ["sum", "product"], ["y"]),
    ]
    held = weights(w=normal(4, 5), b=normal(5))
    model = loaded_like_onnxruntime(graph(nodes, {"x": [3, 4]}, ["y"], held), tmp_path)
    assert operators(model) == ["Linear", "Add", "Mul"]


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
def test_batch_norm_of_any_rank(tmp_path: Path, rank: int) -> None:
    held = weights(bn__weight=normal(4), bn__bias=normal(4, seed=1), m=normal(4, seed=2), v=np.abs(normal(4, seed=3)))
    nodes = [node("BatchNormalization", ["x", "bn.weight", "bn.bias", "m", "v"], ["y"], epsilon=0.01)]
    model = loaded_like_onnxruntime(graph(nodes, {"x": [2, 4, 5, 6, 7][:rank]}, ["y"], held), tmp_path)
    assert operators(model) == [f"BatchNorm{max(rank - 2, 1)}d"]


def test_quantized_weights_stay_operators(tmp_path: Path) -> None:
    held = weights(
        w=np.arange(-12, 24, dtype=np.int8).reshape(4, 1, 3, 3), s=np.full(4, 0.1, np.float32), xs=np.float32(0.05)
    )
    held += weights(wz=np.zeros(4, np.int8), xz=np.uint8(128))
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        node("DequantizeLinear", ["w", "s", "wz"], ["wd"], axis=0),
        node("Conv", ["xd", "wd"], ["y"], group=4),
    ]
    model = loaded_like_onnxruntime(graph(nodes, {"x": [1, 4, 6, 6]}, ["y"], held), tmp_path)
    assert operators(model) == ["QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "Conv"]
    assert not list(model.graph.parameters())


def test_every_weight_is_trained_and_no_setting_is(tmp_path: Path) -> None:
    held = weights(c__weight=normal(4, 3, 1, 1), scale=normal(1, 4, 1, 1), shape=np.array([0, -1]), low=np.float32(0))
    nodes = [
        node("Conv", ["x", "c.weight"], ["a"]),
        node("Mul", ["a", "scale"], ["b"]),
        node("Clip", ["b", "low"], ["c"]),
        node("Reshape", ["c", "shape"], ["y"]),
    ]
    model = loaded_like_onnxruntime(graph(nodes, {"x": ["N", 3, 4, 4]}, ["y"], held), tmp_path)
    assert {name for name, _ in model.graph.named_parameters()} == {"c.weight", "scale"}
    (y,) = model.graph(torch.randn(2, 3, 4, 4))
    y.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.graph.parameters())
    assert not model.graph.training


GEOMETRY = st.fixed_dictionaries(
    {
        "rank": st.integers(1, 3),
        "group": st.sampled_from([1, 2, 4]),
        "kernel": st.integers(1, 3),
        "stride": st.integers(1, 3),
        "dilation": st.integers(1, 2),
        "pads": st.lists(st.integers(0, 2), min_size=6, max_size=6),
        "bias": st.booleans(),
        "transposed": st.booleans(),
    }
)


@settings(max_examples=60)
@given(GEOMETRY)
def test_any_geometry(tmp_path_factory: pytest.TempPathFactory, geometry: dict) -> None:  # type: ignore[type-arg]
    rank, group, kernel = geometry["rank"], geometry["group"], geometry["kernel"]
    transposed = geometry["transposed"]
    pads = [p % (kernel * geometry["dilation"]) for p in geometry["pads"][: 2 * rank]]
    shape = (4, 8 // group) if transposed else (8, 4 // group)
    held = weights(w=normal(*shape, *[kernel] * rank), b=normal(8, seed=1))
    attributes = {
        "group": group,
        "strides": [geometry["stride"]] * rank,
        "dilations": [geometry["dilation"]] * rank,
        "pads": pads,
    }
    inputs = ["x", "w", "b"] if geometry["bias"] else ["x", "w"]
    nodes = [node("ConvTranspose" if transposed else "Conv", inputs, ["y"], **attributes)]
    proto = graph(nodes, {"x": [2, 4, *[9, 8, 7][:rank]]}, ["y"], held)
    model = loaded_like_onnxruntime(proto, tmp_path_factory.mktemp("net"))
    plain = pads[:rank] == pads[rank:]
    assert operators(model)[-1].startswith("Conv")
    assert any(n.op == "call_module" for n in model.graph.graph.nodes) == (plain or not transposed)


def test_constants_that_are_outputs_and_inputs_that_are_outputs() -> None:
    nodes = [node("Constant", [], ["k"], value=numpy_helper.from_array(normal(2))), node("Identity", ["x"], ["y"])]
    model = source.from_proto(graph(nodes, {"x": [2]}, ["y", "k"]), ModelRef("net.onnx"), "")
    x = torch.randn(2)
    assert torch.equal(model({"x": x})["y"], x)
    assert torch.equal(model({"x": x})["k"], torch.from_numpy(normal(2)))


def test_two_loads_are_one_model(tmp_path: Path) -> None:
    held = weights(w=normal(4, 3, 3, 3))
    path = saved(graph([node("Conv", ["x", "w"], ["y"])], {"x": [1, 3, 8, 8]}, ["y"], held), tmp_path)
    first, second = load(ModelRef(path)), load(ModelRef(path))
    assert first.digest == second.digest
    assert first.graph.code == second.graph.code


def test_same_padding_follows_the_size_that_the_user_tells(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])]
    file = saved(graph(nodes, {"x": ["N", 3, "H", "W"]}, ["y"], weights(w=normal(4, 3, 3, 3))), tmp_path)
    for told, operator in ((None, "Conv"), ("x:Nx3x9x8", "Conv2d")):
        shapes = dict([parse_shape(told)]) if told else {}
        assert operators(load(ModelRef(str(file), shapes=shapes)))[-1] == operator
