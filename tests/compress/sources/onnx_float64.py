"""What an ONNX file computes in double precision by onnx's own reference: the truth that float32 only comes near."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper, version_converter
from onnx.reference import ReferenceEvaluator

from convkit.compress.model import Model, clone

_OPSET = 15
"""The reference takes BatchNormalization of opsets 9 to 13 for a training step, whose statistics are the batch's."""


def reference(path: str) -> ReferenceEvaluator:
    """The file's network with every float32 weight, constant, cast and input in float64."""
    proto = version_converter.convert_version(onnx.load(path), _OPSET)
    for tensor in _tensors(proto.graph):
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for node in proto.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    return ReferenceEvaluator(proto)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))


def in_float64(model: Model) -> Model:
    """`model` in float64, its attributes as a file has them: a slope of 0.2 is float32's 0.200000003 there."""
    graph = clone(model.graph).double()
    for node in graph.graph.nodes:
        node.kwargs = {key: _as_float32(value) for key, value in node.kwargs.items()}
    for layer in graph.modules():
        if hasattr(layer, "eps"):
            layer.eps = _as_float32(layer.eps)
    graph.recompile()
    return model.replace(graph=graph)


def _as_float32(value: object) -> object:
    return float(np.float32(value)) if isinstance(value, float) else value
