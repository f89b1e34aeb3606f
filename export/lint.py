"""Lint: what an engine will refuse of an ONNX file, or run otherwise than it says, told before anything is built.

A rule is a file in `export/rules`; ONNX's own checker knows none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from convkit.compress import nested, parts
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    import numpy as np
    import onnx

FOLDER = "export/rules"
TENSORRT = ("tensorrt", "tensorrt_rtx")


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with `node` (or the whole file), and what to do about it."""

    rule: str
    node: str
    operator: str
    words: str
    advice: str


@dataclass(frozen=True, slots=True)
class Device:
    """What is known of the device: its compute capability, and whether there are libraries with plugins, which may have
    any operator."""

    sm: int | None = None
    plugins: bool = False


@dataclass(frozen=True, slots=True)
class File:
    """An ONNX file as rules look at it: its nodes, those in branches and bodies behind the one that has them, element
    types, what makes each tensor, who reads it, constants by name, and sizes, 0 for those that are free."""

    model: onnx.ModelProto
    nodes: Sequence[onnx.NodeProto]
    types: Mapping[str, int]
    makers: Mapping[str, onnx.NodeProto]
    readers: Mapping[str, list[onnx.NodeProto]]
    tensors: Mapping[str, onnx.TensorProto]
    shapes: Mapping[str, tuple[int, ...]]
    device: Device = field(default_factory=Device)

    def constant(self, name: str) -> np.ndarray | None:
        """The numbers of a constant tensor, of a type that numpy has or ml_dtypes adds; None for any other."""
        from onnx import numpy_helper

        while name in self.makers and self.makers[name].op_type == "Identity":
            name = self.makers[name].input[0]
        tensor = self.tensors.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def kind(self, name: str) -> str:
        """Element type of a tensor as ONNX spells it; UNDEFINED where the file does not say."""
        from onnx import TensorProto

        return str(TensorProto.DataType.Name(self.types.get(name, 0)))

    def dequantized(self, name: str) -> bool:
        """Whether a tensor is made of codes."""
        maker = self.makers.get(name)
        return maker is not None and maker.op_type == "DequantizeLinear"

    def weight(self, node: onnx.NodeProto) -> onnx.TensorProto | None:
        """The constant that the second input of `node` is cast or dequantized from; None where there is none."""
        name = node.input[1]
        while name in self.makers and self.makers[name].input:
            name = self.makers[name].input[0]
        return self.tensors.get(name)


Broken = tuple["onnx.NodeProto | None", str, str]
"""The node, what is wrong, what to do."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`look` yields what breaks it; `engines` are those that it is for."""

    look: Callable[[File], Iterator[Broken]]
    engines: tuple[str, ...] = TENSORRT


def lint(model: onnx.ModelProto, engine: str, device: Device | None = None) -> list[Finding]:
    """Every Finding in `model` for `engine`, in the order of its nodes, the file's own first.

    Raises ConvkitError for an engine that there are no rules for: nothing found would say nothing.
    """
    rules: dict[str, Rule] = {name: parts.load(FOLDER, name) for name in parts.names(FOLDER)}
    rules = {name: rule for name, rule in rules.items() if engine in rule.engines}
    if not rules:
        raise ConvkitError(f"there are no rules for {engine}", hint="lint for trt or trt-rtx")
    file = described(model, device)
    order = {id(node): place for place, node in enumerate(file.nodes)}
    found: list[tuple[int, Finding]] = []
    for name, rule in rules.items():
        for node, words, advice in rule.look(file):
            place = -1 if node is None else order.get(id(node), -1)
            who = ("", "") if node is None else (node.name or _outputs(node), node.op_type)
            found.append((place, Finding(name, *who, words, advice)))
    return [finding for _, finding in sorted(found, key=lambda pair: (pair[0], pair[1].rule))]


def described(model: onnx.ModelProto, device: Device | None = None) -> File:
    """`model` as rules look at it."""
    nodes = list(nested.nodes(model.graph.node))
    graphs = list(nested.graphs(inferred(model).graph))
    tensors = {tensor.name: tensor for graph in graphs for tensor in graph.initializer}
    tensors |= {node.output[0]: held for node in nodes for held in _held(node)}
    values = [value for graph in graphs for value in (*graph.input, *graph.output, *graph.value_info)]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {name: tensor.data_type for name, tensor in tensors.items()}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in (*node.input, *(value.name for body in nested.bodies(node) for value in body.output)):
            readers.setdefault(name, []).append(node)
    makers = {name: node for node in nodes for name in node.output}
    shapes = {value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in values}
    return File(model, nodes, types, makers, readers, tensors, shapes, device or Device())


def _held(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    """The numbers in a Constant: a tensor, or plain ones."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    for attribute in node.attribute if node.op_type == "Constant" else ():
        if attribute.type == onnx.AttributeProto.TENSOR:
            yield attribute.t
        elif attribute.name in kinds:
            value = onnx.helper.get_attribute_value(attribute)
            yield numpy_helper.from_array(np.array(value, kinds[attribute.name]), node.output[0])


def inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with the type of every tensor, as far as ONNX knows its operators."""
    import onnx
    from google.protobuf.message import EncodeError

    try:
        return onnx.shape_inference.infer_shapes(model)
    except (onnx.shape_inference.InferenceError, ValueError, EncodeError):  # the last: of more than 2 GiB
        return model


def _outputs(node: onnx.NodeProto) -> str:
    return f"(unnamed, makes {node.output[0]})" if node.output else "(unnamed)"
