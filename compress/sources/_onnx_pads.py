"""SAME padding of strided convolutions written out, wherever the file itself, or the user, fixes the image's size.

What SAME means depends on that size; a free batch leaves it as fixed as it was, which ONNX's shape inference sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import helper

from convkit.compress.ops.conv import same_pads


def write_out(proto: onnx.ModelProto, given: Mapping[str, Sequence[int | str]]) -> None:
    """Replace `auto_pad` by `pads` in each convolution whose input and kernel have known sizes; `given` are the shapes
    of inputs that the user told.
    """
    convs = [node for node in proto.graph.node if node.op_type == "Conv" and _attributes(node).get("auto_pad") in _SAME]
    if not convs:
        return
    sizes = _sizes(proto, given)
    for node in convs:
        size, kernel = sizes.get(node.input[0]), sizes.get(node.input[1])
        if size and kernel and len(size) == len(kernel) and all(size[2:]):
            _write_out(node, size[2:], kernel[2:])


_SAME = (b"SAME_UPPER", b"SAME_LOWER")


def _write_out(node: onnx.NodeProto, size: list[int], kernel: list[int]) -> None:
    given, ones = _attributes(node), [1] * len(kernel)
    strides, dilations = given.get("strides", ones), given.get("dilations", ones)
    if not len(strides) == len(dilations) == len(kernel) or min(strides) < 1:
        return  # the layer's own check says what is wrong
    pads = same_pads(size, kernel, strides, dilations, given["auto_pad"].decode())
    kept = [attribute for attribute in node.attribute if attribute.name not in ("auto_pad", "pads")]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("pads", [int(pad) for pad in pads])])


def _told(proto: onnx.ModelProto, given: Mapping[str, Sequence[int | str]]) -> onnx.ModelProto:
    """`proto` with inputs of the sizes that are `given`, and no shapes of what they were without."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.value_info[:]
    for value in copy.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, given.get(value.name, ()), strict=False):
            if isinstance(size, int):
                dim.dim_value = size
    return copy


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _sizes(proto: onnx.ModelProto, given: Mapping[str, Sequence[int | str]]) -> dict[str, list[int]]:
    """Shapes by tensor, 0 where a size is free; without those that cannot be inferred."""
    found = {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}
    try:
        graph = onnx.shape_inference.infer_shapes(_told(proto, given)).graph
    except (ValueError, RuntimeError, onnx.shape_inference.InferenceError):
        return found
    for value in (*graph.input, *graph.value_info):
        if value.type.tensor_type.HasField("shape"):
            found.setdefault(value.name, [dim.dim_value for dim in value.type.tensor_type.shape.dim])
    return found
