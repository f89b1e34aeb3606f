"""GroupNormalization for an engine that subtracts squares of means: as InstanceNormalization, which does not.

ONNX defines the operator by a function whose variance is E[x²] - E[x]²; where an engine has no kernel for it and takes
that, numbers far from zero beside their spread lose all their digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from convkit.export.pattern import attributes
from convkit.export.replacement import Replacement, names, replaced

if TYPE_CHECKING:
    import onnx

_OPERATOR, _BY_CHANNEL = "GroupNormalization", 21
"""Opset from which scale and bias are those of channels, as here, not of groups."""


def by_instance(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, edited: every GroupNormalization that is known to be in float32 is InstanceNormalization of groups."""
    from onnx import TensorProto

    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets.get("", 0) < _BY_CHANNEL or all(node.op_type != _OPERATOR for node in model.graph.node):
        return model
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    floats |= {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    taken = names(model)
    written = (
        _written(node, taken) if node.op_type == _OPERATOR and not node.domain and floats >= {*node.input} else [node]
        for node in model.graph.node
    )
    return replaced(model, [made for nodes in written for made in nodes])


def _written(node: onnx.NodeProto, taken: set[str]) -> list[onnx.NodeProto]:
    """[N, C, …] as [N, groups, …], normalized, then scaled as [N, C, …], in its own shape again."""
    told = attributes(node)
    groups, x, (scale, bias) = int(told["num_groups"]), node.input[0], node.input[1:3]
    write = Replacement(node, taken)
    grouped = write.op("Reshape", [x, write.held("grouped", [0, groups, -1])], "groups")
    plain = [write.held("ones", np.ones(groups, np.float32)), write.held("zeros", np.zeros(groups, np.float32))]
    epsilon = float(told.get("epsilon", 1e-5))
    normal = write.op("InstanceNormalization", [grouped, *plain], "normalized", epsilon=epsilon)
    ends, count = [write.held("first", [0]), write.held("rest", [-1])], write.op("Shape", [scale], "count")
    by_channel = write.op("Concat", [ends[0], count, ends[1]], "by_channel", axis=0)
    made = write.op("Reshape", [normal, by_channel], "channels")
    behind = write.held("behind", [1])
    made = write.op("Mul", [made, write.op("Unsqueeze", [scale, behind], "scale")], "scaled")
    made = write.op("Add", [made, write.op("Unsqueeze", [bias, behind], "bias")], "biased")
    write.op("Reshape", [made, write.op("Shape", [x], "shape")], "output")
    return write.nodes()
