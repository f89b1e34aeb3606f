"""One network in the words of every opset from 9 to 25, and each operator that changed in its older forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from convkit.compress.errors import ConvkitError
from convkit.compress.model import InputShape, ModelRef, load
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


def _ints(name: str, *values: int) -> list[onnx.TensorProto]:
    return weights(**{name: np.array(values, np.int64)})


def _net(opset: int) -> onnx.ModelProto:
    """Stem, residual block, squeeze and classifier, in the form of `opset`."""
    held = weights(stem__weight=normal(8, 3, 3, 3), bn__weight=normal(8), bn__bias=normal(8, seed=1))
    held += weights(mean=normal(8, seed=2), var=np.abs(normal(8, seed=3)), fc__weight=normal(5, 8), fc__bias=normal(5))
    held += [*_ints("hw", 2, 3), *_ints("axes", 2, 3), *_ints("starts", 0), *_ints("ends", 6), *_ints("one", 1)]
    held += weights(zero=np.float32(0), six=np.float32(6))
    clip = node("Clip", ["b"], ["c"], min=0.0, max=6.0) if opset < 11 else node("Clip", ["b", "zero", "six"], ["c"])
    cut = node("Slice", ["c"], ["d"], starts=[0], ends=[6], axes=[1]) if opset < 10 else None
    mean = node("ReduceMean", ["p"], ["m"], axes=[2, 3]) if opset < 18 else node("ReduceMean", ["p", "hw"], ["m"])
    old = node("Squeeze", ["m"], ["s"], axes=[2, 3])
    return graph(
        [
            node("Conv", ["x", "stem.weight"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
            node("BatchNormalization", ["a", "bn.weight", "bn.bias", "mean", "var"], ["b"]),
            clip,
            cut or node("Slice", ["c", "starts", "ends", "one"], ["d"]),
            node("Pad", ["d"], ["e"], pads=[0, 1, 0, 0, 0, 1, 0, 0])
            if opset < 11
            else node("Pad", ["d", "pads"], ["e"]),
            node("MaxPool", ["e"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            mean,
            old if opset < 13 else node("Squeeze", ["m", "hw"], ["s"]),
            node("Dropout", ["s"], ["t"]),
            node("Gemm", ["t", "fc.weight", "fc.bias"], ["l"], transB=1),
            node("Softmax", ["l"], ["y"], axis=1),
        ],
        {"x": ["N", 3, 12, 12]},
        ["y"],
        held + _ints("pads", 0, 1, 0, 0, 0, 1, 0, 0),
        opset,
    )


@pytest.mark.parametrize("opset", range(9, 26))
def test_one_network_in_every_opset(tmp_path: Path, opset: int) -> None:
    proto = _net(opset)
    proto.ir_version = 4 if opset == 9 else 8
    model = loaded_like_onnxruntime(proto, tmp_path)
    assert operators(model) == [
        *("Conv2d", "BatchNorm2d", "Clip", "Slice", "Pad"),
        *("MaxPool", "ReduceMean", "Squeeze", "Linear", "Softmax"),
    ]
    assert_like_onnxruntime(model, str(tmp_path / "net.onnx"), {"x": torch.randn(3, 3, 12, 12)})


_TF = "tf_half_pixel_for_nn"
OLD: dict[str, tuple[int, list[onnx.NodeProto], list[onnx.TensorProto]]] = {
    "Upsample-9": (
        9,
        [node("Upsample", ["x", "f"], ["y"], mode="nearest")],
        weights(f=np.array([1, 1, 2, 2], np.float32)),
    ),
    "Upsample-9-linear": (
        9,
        [node("Upsample", ["x", "f"], ["y"], mode="linear")],
        weights(f=np.array([1, 1, 2, 2], np.float32)),
    ),
    "Resize-10": (
        10,
        [node("Resize", ["x", "f"], ["y"], mode="linear")],
        weights(f=np.array([1, 1, 2, 1.5], np.float32)),
    ),
    "Resize-11": (
        11,
        [node("Resize", ["x", "none", "none", "z"], ["y"], mode="cubic")],
        weights(none=np.zeros(0, np.float32), z=np.array([2, 4, 9, 7], np.int64)),
    ),
    "Resize-10-shrinking": (
        10,
        [node("Resize", ["x", "f"], ["y"])],
        weights(f=np.array([1, 1, 1, 0.4], np.float32)),
    ),
    "Resize-10-one-axis-shrinking": (
        10,
        [node("Resize", ["x", "f"], ["y"], mode="nearest")],
        weights(f=np.array([1, 1, 1.5, 0.4], np.float32)),
    ),
    "Resize-11-tf": (
        11,
        [node("Resize", ["x", "none", "f"], ["y"], nearest_mode="floor", coordinate_transformation_mode=_TF)],
        weights(none=np.zeros(0, np.float32), f=np.array([1, 1, 2, 0.4], np.float32)),
    ),
    "Resize-11-tf-round": (
        11,
        [node("Resize", ["x", "none", "f"], ["y"], coordinate_transformation_mode=_TF)],
        weights(none=np.zeros(0, np.float32), f=np.array([1, 1, 2, 0.4], np.float32)),
    ),
    "TopK-9": (9, [node("TopK", ["x"], ["y", "i"], k=2, axis=1)], []),
    "Softmax-9": (9, [node("Softmax", ["x"], ["y"])], []),
    "LogSoftmax-11": (11, [node("LogSoftmax", ["x"], ["y"], axis=2)], []),
    "Hardmax-11": (11, [node("Hardmax", ["x"], ["y"], axis=3)], []),
    "Split-11": (11, [node("Split", ["x"], ["y", "z"], axis=1, split=[1, 3])], []),
    "Split-13": (13, [node("Split", ["x"], ["y", "z"], axis=1)], []),
    "Split-18": (18, [node("Split", ["x"], ["y", "z"], axis=2, num_outputs=2)], []),
    "Unsqueeze-9": (9, [node("Unsqueeze", ["x"], ["y"], axes=[0, 2])], []),
    "ReduceSum-11": (11, [node("ReduceSum", ["x"], ["y"], axes=[-1], keepdims=0)], []),
    "ReduceL2-13": (13, [node("ReduceL2", ["x"], ["y"], axes=[1, 2])], []),
    "Pad-10": (10, [node("Pad", ["x"], ["y"], pads=[0, 0, 1, 2, 0, 0, 2, 1], value=0.5)], []),
    "Pad-10-reflect": (10, [node("Pad", ["x"], ["y"], pads=[0, 0, 1, 2, 0, 0, 2, 1], mode="reflect")], []),
    "Clip-9-lower": (9, [node("Clip", ["x"], ["y"], min=-0.5)], []),
    "GridSample-16": (16, [node("GridSample", ["x", "g"], ["y"], mode="bicubic")], weights(g=normal(2, 3, 3, 2) / 2)),
    "ConstantOfShape": (
        9,
        [node("Shape", ["x"], ["s"]), node("ConstantOfShape", ["s"], ["z"]), node("Add", ["x", "z"], ["y"])],
        [],
    ),
    "Scatter-9": (
        9,
        [node("Scatter", ["x", "i", "u"], ["y"], axis=1)],
        weights(i=np.zeros((2, 1, 6, 5), np.int64), u=normal(2, 1, 6, 5)),
    ),
}


@pytest.mark.parametrize("name", OLD)
@pytest.mark.parametrize("shape", [(2, 4, 6, 5), ("N", "C", "H", "W")], ids=["fixed", "free"])
def test_older_form(tmp_path: Path, name: str, shape: tuple[Any, ...]) -> None:
    opset, nodes, held = OLD[name]
    outputs = [output for output in nodes[-1].output if output != "i"]
    path = saved(graph(nodes, {"x": shape}, outputs, held, opset), tmp_path)
    model = load(ModelRef(path, shapes={"x": InputShape(shape, (2, 4, 6, 5))}))
    assert_like_onnxruntime(model, path)


@pytest.mark.parametrize("how", [{"mode": "linear"}, {"nearest_mode": "ceil"}])
def test_places_of_tensorflow_that_have_no_newer_form_are_refused(tmp_path: Path, how: dict[str, str]) -> None:
    scales = weights(none=np.zeros(0, np.float32), f=np.array([1, 1, 2, 2], np.float32))
    nodes = [node("Resize", ["x", "none", "f"], ["y"], coordinate_transformation_mode=_TF, **how)]
    path = saved(graph(nodes, {"x": [1, 1, 4, 4]}, ["y"], scales, 11), tmp_path)
    with pytest.raises(ConvkitError, match="at places of TensorFlow's nearest"):
        load(ModelRef(path))


def test_inputs_that_hold_the_weights(tmp_path: Path) -> None:
    """Before IR version 4 every initializer had to be an input as well."""
    proto = graph(
        [node("Conv", ["x", "w"], ["y"])],
        {"x": [1, 3, 8, 8], "w": [4, 3, 3, 3]},
        ["y"],
        weights(w=normal(4, 3, 3, 3)),
        9,
    )
    proto.ir_version = 3
    model = loaded_like_onnxruntime(proto, tmp_path)
    assert [spec.name for spec in model.inputs] == ["x"]


@pytest.mark.parametrize("opset", [8, 26])
def test_opset_outside_the_range_is_refused(tmp_path: Path, opset: int) -> None:
    path = saved(graph([node("Relu", ["x"], ["y"])], {"x": [1]}, ["y"], opset=opset), tmp_path)
    with pytest.raises(ConvkitError, match=f"opset {opset}; convkit reads 9 to 25"):
        load(ModelRef(path))


def test_local_functions_are_inlined(tmp_path: Path) -> None:
    proto = graph([node("Gated", ["x"], ["y"], domain="own")], {"x": [2, 3]}, ["y"])
    opsets = [helper.make_opsetid("", 17)]
    body = [node("Sigmoid", ["a"], ["s"]), node("Mul", ["a", "s"], ["b"])]
    proto.functions.append(helper.make_function("own", "Gated", ["a"], ["b"], body, opsets))
    proto.opset_import.append(helper.make_opsetid("own", 1))
    assert operators(loaded_like_onnxruntime(proto, tmp_path)) == ["Sigmoid", "Mul"]


def test_operators_that_are_defined_by_others_are_expanded(tmp_path: Path) -> None:
    proto = graph([node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])], {"x": [2, 3]}, ["q", "s", "z"])
    for output, kind in zip(proto.graph.output, (2, 1, 2), strict=True):
        output.type.tensor_type.elem_type = kind
    assert "QuantizeLinear" in operators(loaded_like_onnxruntime(proto, tmp_path))


def test_shapes_fold_where_they_are_fixed_and_stay_where_they_are_free(tmp_path: Path) -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Concat", ["n", "rest"], ["t"], axis=0),
        node("Reshape", ["x", "t"], ["y"]),
    ]
    held = [*_ints("zero", 0), *_ints("rest", -1)]
    fixed = loaded_like_onnxruntime(graph(nodes, {"x": [2, 3, 4]}, ["y"], held), tmp_path)
    assert operators(fixed) == ["Reshape"]
    free = loaded_like_onnxruntime(graph(nodes, {"x": ["N", 3, 4]}, ["y"], held), tmp_path)
    assert operators(free) == ["Shape", "Gather", "Concat", "Reshape"]


def test_an_if_takes_the_branch_its_shapes_choose(tmp_path: Path) -> None:
    proto = graph(
        [
            node("Shape", ["x"], ["s"]),
            node("Size", ["s"], ["rank"]),
            node("Equal", ["rank", "two"], ["flat"]),
            node("If", ["flat"], ["y"], then_branch=_branch("Relu"), else_branch=_branch("Neg")),
        ],
        {"x": [2, 3]},
        ["y"],
        weights(two=np.int64(2)),
    )
    assert operators(loaded_like_onnxruntime(proto, tmp_path)) == ["Relu", "Identity"]


def _branch(kind: str) -> onnx.GraphProto:
    return helper.make_graph(
        [node(kind, ["x"], ["inner"])], kind, [], [helper.make_tensor_value_info("inner", 1, None)]
    )
