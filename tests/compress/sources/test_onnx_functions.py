"""Local functions of a stranger's file: a few lines of them can come to more nodes than memory holds, or never end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
import pytest
from onnx import external_data_helper, helper

from convkit.compress.errors import ConvkitError
from convkit.compress.model import ModelRef, load
from tests.compress.sources.onnx_peer import graph, loaded_like_onnxruntime, normal, operators, saved, weights

node = helper.make_node
Body = Sequence[onnx.NodeProto]


def _calling(bodies: dict[str, Body], called: str) -> onnx.ModelProto:
    proto = graph([node(called, ["x"], ["y"], domain="own")], {"x": [2]}, ["y"])
    opsets = [helper.make_opsetid("own", 1), helper.make_opsetid("", 17)]
    for name, body in bodies.items():
        proto.functions.append(helper.make_function("own", name, ["a"], ["b"], list(body), opsets))
    proto.opset_import.append(helper.make_opsetid("own", 1))
    return proto


def _doubling(levels: int) -> onnx.ModelProto:
    """F0 is one node, each other function calls that before it twice."""
    bodies: dict[str, Body] = {"F0": [node("Neg", ["a"], ["b"])]}
    for level in range(1, levels + 1):
        called = f"F{level - 1}"
        bodies[f"F{level}"] = [node(called, ["a"], ["m"], domain="own"), node(called, ["m"], ["b"], domain="own")]
    return _calling(bodies, f"F{levels}")


def test_functions_that_call_others_are_inlined(tmp_path: Path) -> None:
    assert operators(loaded_like_onnxruntime(_doubling(3), tmp_path)) == ["Neg"] * 8


def test_functions_that_come_to_too_many_nodes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConvkitError, match="its functions come to 2,097,152 nodes"):
        load(ModelRef(saved(_doubling(21), tmp_path)))


def test_a_function_that_calls_itself_in_a_branch_is_refused(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [node("Turn", ["a"], ["r"], domain="own")], "again", [], [helper.make_tensor_value_info("r", 1, None)]
    )
    body = [
        node("ReduceMax", ["a"], ["m"], keepdims=0),
        node("Cast", ["m"], ["c"], to=9),
        node("If", ["c"], ["b"], then_branch=inner, else_branch=inner),
    ]
    with pytest.raises(ConvkitError, match="function 'Turn' calls itself"):
        load(ModelRef(saved(_calling({"Turn": body}, "Turn"), tmp_path)))


@pytest.mark.parametrize("key", ["length", "offset"])
def test_external_data_that_would_be_longer_than_its_file_is_not_asked_for(tmp_path: Path, key: str) -> None:
    """Memory for as many bytes as a file claims is taken before the first of them is read."""
    proto = graph([node("Conv", ["x", "w"], ["y"])], {"x": [1, 3, 8, 8]}, ["y"], weights(w=normal(4, 3, 3, 3)))
    external_data_helper.convert_model_to_external_data(proto, location="net.data", size_threshold=0)
    onnx.save(proto, tmp_path / "net.onnx")
    proto = onnx.load(tmp_path / "net.onnx", load_external_data=False)
    next(entry for entry in proto.graph.initializer[0].external_data if entry.key == key).value = str(2**50)
    with pytest.raises(ConvkitError, match="'net.data' ends before the data of tensor 'w'"):
        load(ModelRef(saved(proto, tmp_path)))
