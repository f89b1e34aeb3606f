"""Layers in branches run in what they are planned in, as all others do."""

from pathlib import Path

import numpy as np
import onnx

from convkit.export.tensorrt.asserted import build_and_assert
from convkit.export.tensorrt.request import Settings
from tests.compress.network import residual
from tests.export.tensorrt.planned import written


def test_layers_in_branches_run_as_planned(tmp_path: Path) -> None:
    """They are named, asserted and linted as all others."""
    whole = onnx.load(written(residual().model("scores"), "int8", tmp_path / "whole"))
    graph = whole.graph
    body = onnx.helper.make_graph(graph.node, "then", [], graph.output, graph.initializer)
    zeros = onnx.numpy_helper.from_array(np.zeros(tuple(d.dim_value or 1 for d in shape(graph.output[0])), np.float32))
    nothing = onnx.helper.make_node("Constant", [], ["zeros"], "zeros", value=zeros)
    other = onnx.helper.make_graph([nothing], "other", [], [renamed(graph.output[0], "zeros")])
    chosen = onnx.helper.make_node("If", ["on"], ["made"], "choice", then_branch=body, else_branch=other)
    on = onnx.helper.make_tensor_value_info("on", onnx.TensorProto.BOOL, [])
    made = onnx.helper.make_graph([chosen], "net", [*graph.input, on], [renamed(graph.output[0], "made")])
    path = tmp_path / "net.onnx"
    onnx.save(onnx.helper.make_model(made, opset_imports=whole.opset_import, ir_version=whole.ir_version), path)
    found = build_and_assert("tensorrt_rtx", path, Settings(sm=89)).findings
    assert [(one.planned, one.ran) for one in found] == [("int8", "int8")] * 5


def shape(value: onnx.ValueInfoProto) -> list[onnx.TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim)


def renamed(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    made = onnx.ValueInfoProto()
    made.CopyFrom(value)
    made.name = name
    return made
