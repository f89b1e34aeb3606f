"""GroupNormalization for an engine that subtracts squares of means: as InstanceNormalization, which does not.

ONNX defines the operator by a function whose variance is E[x²] - E[x]²; where an engine has no kernel for it and takes
that, numbers far from zero beside their spread lose all their digits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

_OPERATOR, _BY_CHANNEL = "GroupNormalization", 21
"""Opset from which scale and bias are those of channels, as here, not of groups."""


def by_instance(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with every GroupNormalization, of functions as well, as InstanceNormalization of groups."""
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets.get("", 0) < _BY_CHANNEL:
        return model
    for holder in (model.graph, *model.functions):
        other = _not_float(model, holder)
        nodes = [made for node in holder.node for made in ([node] if other & {*node.input} else _written(node))]
        if len(nodes) != len(holder.node):
            del holder.node[:]
            holder.node.extend(nodes)
    return model


def _not_float(model: onnx.ModelProto, holder: onnx.GraphProto | onnx.FunctionProto) -> set[str]:
    """What `holder`, the graph or a function that it calls, calls constants of other types than float32: those stay."""
    from onnx import FunctionProto, TensorProto

    found = {tensor.name for tensor in model.graph.initializer if tensor.data_type != TensorProto.FLOAT}
    if not isinstance(holder, FunctionProto):
        return found
    calls = [node for node in model.graph.node if (node.domain, node.op_type) == (holder.domain, holder.name)]
    return {inner for call in calls for inner, name in zip(holder.input, call.input, strict=False) if name in found}


def _written(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """[N, C, …] as [N, groups, …], normalized, then scaled as [N, C, …], in its own shape again."""
    from onnx import helper

    if node.op_type != _OPERATOR or node.domain:
        yield node
        return
    told = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    groups, x, (scale, bias) = int(told["num_groups"]), node.input[0], node.input[1:3]
    name = node.output[0]

    def op(kind: str, given: Sequence[str], what: str, **attributes: Any) -> onnx.NodeProto:  # noqa: ANN401 - ONNX's
        made = helper.make_node(kind, given, [f"{name}/{what}"], name=f"{node.name or name}/{what}", **attributes)
        made.metadata_props.extend(node.metadata_props)
        return made

    def held(what: str, values: np.ndarray) -> onnx.NodeProto:
        from onnx import numpy_helper

        return op("Constant", [], what, value=numpy_helper.from_array(values))

    yield held("grouped", np.array([0, groups, -1]))
    yield op("Reshape", [x, f"{name}/grouped"], "groups")
    yield held("ones", np.ones(groups, np.float32))
    yield held("zeros", np.zeros(groups, np.float32))
    given = [f"{name}/groups", f"{name}/ones", f"{name}/zeros"]
    yield op("InstanceNormalization", given, "normalized", epsilon=float(told.get("epsilon", 1e-5)))
    yield held("first", np.array([0]))
    yield held("rest", np.array([-1]))
    yield op("Shape", [scale], "count")
    yield op("Concat", [f"{name}/first", f"{name}/count", f"{name}/rest"], "by_channel", axis=0)
    yield op("Reshape", [f"{name}/normalized", f"{name}/by_channel"], "channels")
    yield held("behind", np.array([1]))
    for what, source in (("scale", scale), ("bias", bias)):
        yield op("Unsqueeze", [source, f"{name}/behind"], what)
    yield op("Mul", [f"{name}/channels", f"{name}/scale"], "scaled")
    yield op("Add", [f"{name}/scaled", f"{name}/bias"], "biased")
    yield op("Shape", [x], "shape")
    last = op("Reshape", [f"{name}/biased", f"{name}/shape"], "")
    del last.output[:]
    last.output.append(name)
    last.name = node.name
    yield last
