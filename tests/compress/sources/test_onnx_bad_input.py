"""Files that are missing, damaged, unsafe or unknown: one clear line each, never a traceback."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from convkit.compress.errors import WRONG_INPUT, ConvkitError
from convkit.compress.model import InputShape, Model, ModelRef, load, parse_shape
from tests.compress.sources.onnx_peer import assert_like_onnxruntime, graph, normal, saved, weights

node = helper.make_node


def _conv(**attributes: Any) -> onnx.ModelProto:
    held = weights(stem__weight=normal(4, 3, 3, 3), stem__bias=normal(4))
    return graph(
        [node("Conv", ["x", "stem.weight", "stem.bias"], ["y"], **attributes)], {"x": ["N", 3, 8, 8]}, ["y"], held
    )


def _refused(path: str | Path, match: str, **ref: Any) -> ConvkitError:
    with pytest.raises(ConvkitError, match=match) as caught:
        load(ModelRef(str(path), **ref))
    assert caught.value.exit_code == WRONG_INPUT
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


def test_missing_file(tmp_path: Path) -> None:
    _refused(tmp_path / "none.onnx", "cannot read .*none.onnx: No such file")


def test_folder(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").mkdir()
    _refused(tmp_path / "net.onnx", "cannot read .*: Is a directory")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    _refused(tmp_path / "net.onnx", "is empty")


@pytest.mark.parametrize("content", [b"\x80\x04\x95 a pickle", b"PK\x03\x04 a zip", b"{}", b"\x08\x08"])
def test_something_else(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    _refused(tmp_path / "net.onnx", "is no ONNX file|holds no ONNX graph")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_truncated_file(tmp_path: Path, kept: float) -> None:
    data = _conv().SerializeToString()
    (tmp_path / "net.onnx").write_bytes(data[: int(len(data) * kept)])
    _refused(tmp_path / "net.onnx", "is no ONNX file|holds no ONNX graph")


def test_unknown_operators_are_all_named(tmp_path: Path) -> None:
    proto = graph(
        [
            node("NonMaxSuppression", ["x", "x"], ["a"], name="pick"),
            node("Fancy", ["a"], ["b"], name="head/fancy", domain="com.maker"),
            node("Det", ["b"], ["y"]),
        ],
        {"x": [1, 2, 2]},
        ["y"],
    )
    proto.opset_import.append(helper.make_opsetid("com.maker", 1))
    error = _refused(saved(proto, tmp_path), "operators that convkit does not know")
    for word in ("NonMaxSuppression (node 'pick')", "com.maker.Fancy (node 'head/fancy')", "Det (node 'y')"):
        assert word in error.message


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["Conv", "MatMul", "Mul"])
def test_broken_weights_are_named(tmp_path: Path, bad: float, kind: str) -> None:
    weight = normal(4, 4, 1, 1) if kind == "Conv" else normal(4, 4)
    weight.reshape(-1)[3] = bad
    proto = graph([node(kind, ["x", "head.weight"], ["y"])], {"x": [1, 4, 4, 4]}, ["y"], weights(head__weight=weight))
    _refused(saved(proto, tmp_path), "weight 'head.weight' holds 1 NaN or infinite of 16")


def test_a_mask_may_be_infinite(tmp_path: Path) -> None:
    mask = np.triu(np.full((4, 4), -np.inf, np.float32), 1)
    nodes = [node("Add", ["x", "mask"], ["a"]), node("Softmax", ["a"], ["y"])]
    path = saved(graph(nodes, {"x": [1, 4, 4]}, ["y"], weights(mask=mask)), tmp_path)
    model = load(ModelRef(path))
    assert_like_onnxruntime(model, path)
    assert not list(model.graph.parameters())


def test_a_step_that_does_not_run_is_named(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["y"], name="head/MatMul")]
    path = saved(graph(nodes, {"x": [2, 3]}, ["y"], weights(w=normal(4, 5))), tmp_path)
    _refused(path, "MatMul 'head/MatMul' does not run on the sample inputs")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    data = graph([node("Relu", ["x"], ["y"])], {"x": ["NAME"]}, ["y"]).SerializeToString()
    (tmp_path / "net.onnx").write_bytes(data.replace(b"NAME", b"\xff\xfe\xfd\xfc"))
    _refused(tmp_path / "net.onnx", "holds a 'dim_param' that is no text")


def test_a_branch_that_values_choose_is_named(tmp_path: Path) -> None:
    branch = helper.make_graph([node("Relu", ["x"], ["r"])], "b", [], [helper.make_tensor_value_info("r", 1, None)])
    nodes = [
        node("ReduceMax", ["x"], ["m"], keepdims=0),
        node("Greater", ["m", "zero"], ["c"]),
        node("If", ["c"], ["y"], name="gate", then_branch=branch, else_branch=branch),
    ]
    path = saved(graph(nodes, {"x": [2]}, ["y"], weights(zero=np.float32(0))), tmp_path)
    _refused(path, "If 'gate' chooses its branch by a value")


def test_shapes_that_do_not_fit(tmp_path: Path) -> None:
    path = saved(_conv(), tmp_path)
    _refused(path, "no input 'z'", shapes=dict([parse_shape("z:1")]))
    _refused(path, "no input 'z'", args={"z": 1})
    _refused(path, "'x' has shape Nx3x8x8, not 1x4x8x8", shapes=dict([parse_shape("x:1x4x8x8")]))
    _refused(path, "'x' is float32, not int64", shapes=dict([parse_shape("x:int64:1x3x8x8")]))
    _refused(path, "'x' has shape Nx3x8x8, not 1x3", shapes=dict([parse_shape("x:1x3")]))
    _refused(path, "too large to run", shapes={"x": InputShape(("N", 3, 8, 8), (10**9, 3, 8, 8))})


def test_an_input_without_a_shape_needs_one(tmp_path: Path) -> None:
    proto = graph([node("Relu", ["x"], ["y"])], {"x": None}, ["y"])  # type: ignore[dict-item]
    path = saved(proto, tmp_path)
    _refused(path, "input 'x' declares no shape")
    assert load(ModelRef(path, shapes=dict([parse_shape("x:Nx3")]))).inputs[0].shape == ("N", 3)


def test_inputs_that_are_no_tensors_of_numbers(tmp_path: Path) -> None:
    proto = graph([node("Identity", ["x"], ["y"])], {"x": [1]}, ["y"])
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    _refused(saved(proto, tmp_path), "'x' has an element type that convkit does not run")


@pytest.mark.parametrize(
    "nodes",
    [
        [node("ConstantOfShape", ["huge"], ["y"])],
        [node("Expand", ["x", "huge"], ["e"]), node("Neg", ["e"], ["y"])],
        [node("Tile", ["x", "huge"], ["y"])],
        [node("Pad", ["x", "huge"], ["y"])],
        [node("Resize", ["x", "", "large"], ["y"])],
        [node("ConvTranspose", ["x", "k"], ["y"], strides=[2**30])],
        [node("Conv", ["x", "k"], ["y"], pads=[2**40, 2**40])],
    ],
    ids=lambda nodes: nodes[0].op_type,
)
def test_tensors_larger_than_memory_are_refused(tmp_path: Path, nodes: list[onnx.NodeProto]) -> None:
    held = weights(
        huge=np.array([2**20, 2**20, 2**20], np.int64), large=np.array([1, 1, 1e12], np.float32), k=normal(1, 1, 2)
    )
    if nodes[0].op_type == "Pad":
        held[0].CopyFrom(numpy_helper.from_array(np.array([0, 0, 2**40, 0, 0, 2**40]), "huge"))
    path = saved(graph(nodes, {"x": [1, 1, 4]}, ["y"], held), tmp_path)
    _refused(path, "does not run on the sample inputs")


def test_a_function_that_calls_itself(tmp_path: Path) -> None:
    proto = graph([node("Loop", ["x"], ["y"], domain="own")], {"x": [2]}, ["y"])
    opsets = [helper.make_opsetid("own", 1), helper.make_opsetid("", 17)]
    body = [node("Loop", ["a"], ["b"], domain="own")]
    proto.functions.append(helper.make_function("own", "Loop", ["a"], ["b"], body, opsets))
    proto.opset_import.append(helper.make_opsetid("own", 1))
    _refused(saved(proto, tmp_path), "function 'Loop' calls itself")


def _external(folder: Path, location: str = "net.data") -> Path:
    proto = _conv()
    external_data_helper.convert_model_to_external_data(proto, location="net.data", size_threshold=0)
    folder.mkdir(exist_ok=True)
    onnx.save(proto, folder / "net.onnx")
    raw = onnx.load(folder / "net.onnx", load_external_data=False)
    for tensor in raw.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = location
    (folder / "net.onnx").write_bytes(raw.SerializeToString())
    return folder / "net.onnx"


def test_external_data_is_read_and_digested(tmp_path: Path) -> None:
    path = _external(tmp_path / "a")
    model = load(ModelRef(str(path)))
    assert_like_onnxruntime(model, str(path))
    data = bytearray((path.parent / "net.data").read_bytes())
    data[0] ^= 1
    (path.parent / "net.data").write_bytes(data)
    assert load(ModelRef(str(path))).digest != model.digest


@pytest.mark.parametrize("location", ["../net.data", "/etc/hostname", "", ".", "a/../../net.data", "\0"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "net.data").write_bytes(b"\0" * 10**4)
    _refused(_external(tmp_path / "a", location), "lies outside the model's folder|cannot read the external data")


def test_external_data_behind_a_link_is_refused(tmp_path: Path) -> None:
    path = _external(tmp_path / "a")
    (path.parent / "net.data").rename(tmp_path / "net.data")
    (path.parent / "net.data").symlink_to(tmp_path / "net.data")
    _refused(path, "lies outside the model's folder")


def test_external_data_that_is_missing_or_short(tmp_path: Path) -> None:
    path = _external(tmp_path / "a")
    data = path.parent / "net.data"
    data.write_bytes(data.read_bytes()[:100])
    _refused(path, "ends before the data of tensor 'stem.weight'")
    data.unlink()
    _refused(path, "cannot read the external data of tensor 'stem.weight'")


def _small() -> list[bytes]:
    reshaped = graph(
        [
            node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
            node("Clip", ["a", "zero", "six"], ["b"]),
            node("AveragePool", ["b"], ["c"], kernel_shape=[2, 2], ceil_mode=1),
            node("Resize", ["c", "", "scales"], ["d"], mode="linear"),
            node("Reshape", ["d", "shape"], ["e"]),
            node("Slice", ["e", "start", "end"], ["f"]),
            node("Softmax", ["f"], ["y"]),
        ],
        {"x": ["N", 2, 6, 6]},
        ["y"],
        weights(w=normal(2, 2, 3, 3), zero=np.float32(0), six=np.float32(6), scales=np.array([1, 1, 2, 2], np.float32))
        + weights(shape=np.array([0, -1]), start=np.array([0, 0]), end=np.array([1, 9])),
    )
    return [_conv(pads=[1, 1, 1, 1]).SerializeToString(), reshaped.SerializeToString()]


def _mutated(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(changed))
        match rng.randrange(4):
            case 0:
                changed[place] ^= 1 << rng.randrange(8)
            case 1:
                changed[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                del changed[place : place + rng.randint(1, 8)]
            case _:
                changed[place:place] = rng.randbytes(rng.randint(1, 8))
    return bytes(changed)


@pytest.mark.parametrize("seed", range(8))
def test_mutated_files_load_or_are_refused(tmp_path: Path, seed: int) -> None:
    """Byte by byte damage: a Model, or a ConvkitError of one line; nothing else, and no hang."""
    rng = random.Random(seed)
    path = tmp_path / "net.onnx"
    for _ in range(250):
        path.write_bytes(_mutated(rng.choice(_small()), rng))
        _loads_or_is_refused(path)


def _loads_or_is_refused(path: Path) -> None:
    try:
        loaded: object = load(ModelRef(str(path)))
    except ConvkitError as error:
        loaded = error
    assert isinstance(loaded, Model) or "\n" not in str(loaded)
