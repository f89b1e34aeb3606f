"""A GraphProto in the making: nodes in order, initializers in order of first use, every name once."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
import torch
from onnx import AttributeProto, defs, helper

from convkit.compress import membership
from convkit.compress.errors import ConvkitError
from convkit.export import tensors


@dataclass(slots=True)
class GraphWriter:
    """Collects nodes and initializers; `opset` rises when an operator came later."""

    opset: int
    told: Mapping[str, str] = field(default_factory=dict)
    """The metadata of nodes from now on."""
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    _values: set[str] = field(default_factory=set)
    _node_names: set[str] = field(default_factory=set)
    _shared: dict[tuple[int, bool], str] = field(default_factory=dict)
    _kept: list[torch.Tensor] = field(default_factory=list)

    def reserve(self, names: Sequence[str]) -> None:
        """Tensor names that only their own node may use."""
        self._values.update(names)

    def node(self, operator: str, name: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:  # noqa: ANN401 - whatever ONNX takes
        """Append one node; attributes that are None are absent."""
        schema = self._schema(operator, attributes)
        node = helper.make_node(operator, _without_trailing_blanks(inputs), outputs, _unique(name, self._node_names))
        node.attribute.extend(_attributes(schema, attributes))
        membership.write(node, self.told)
        self.nodes.append(node)

    def initializer(self, name: str, tensor: torch.Tensor, *, transposed: bool = False) -> str:
        """The name of `tensor` (or its transpose) in the file; a parameter that layers share is written once."""
        key = (id(tensor), transposed)
        if key not in self._shared:
            self._kept.append(tensor)  # an id is only unique while its object lives
            self._shared[key] = self.value_name(name)
            values = tensor.detach().t() if transposed else tensor
            self.initializers.append(tensors.initializer(self._shared[key], values))
        return self._shared[key]

    def value_name(self, name: str) -> str:
        """`name`, or the first of name_1, name_2, … that no tensor has yet."""
        return _unique(name, self._values)

    def _schema(self, operator: str, attributes: Mapping[str, Any]) -> defs.OpSchema:
        first = _first_versions().get(operator)
        if first is None:
            raise ConvkitError(f"ONNX has no operator {operator!r}", hint="write it with operators that ONNX has")
        words = [_LATER.get((operator, value), 0) for value in attributes.values() if isinstance(value, str)]
        self.opset = max(self.opset, first, _REVISED.get(operator, 0), *words)
        return defs.get_schema(operator, max_inclusive_version=self.opset)


_REVISED = {"GridSample": 20, "GroupNormalization": 21}
"""Operators that came with other words than a Model has, and the opset of these."""
_LATER = {("Pad", "wrap"): 19, ("Resize", "half_pixel_symmetric"): 19}
"""Words that an operator was given later, and the opset."""


@functools.cache
def _first_versions() -> dict[str, int]:
    """The opset in which each operator of ai.onnx came."""
    versions: dict[str, int] = {}
    for schema in defs.get_all_schemas_with_history():
        if schema.domain == "":
            versions[schema.name] = min(schema.since_version, versions.get(schema.name, schema.since_version))
    return versions


def _attributes(schema: defs.OpSchema, values: Mapping[str, Any]) -> list[onnx.AttributeProto]:
    given = {name: value for name, value in values.items() if value is not None}
    unknown = sorted(given.keys() - schema.attributes.keys())
    if unknown:
        text = f"{schema.name} of opset {schema.since_version} has no attribute {', '.join(unknown)}"
        raise ConvkitError(text, hint="export to a later opset")
    return [_attribute(name, given[name], _kind(schema, name)) for name in sorted(given)]


def _kind(schema: defs.OpSchema, name: str) -> int:
    """The attribute's type as AttributeProto numbers it; the schema's own type goes by the same names."""
    return int(AttributeProto.AttributeType.Value(str(schema.attributes[name].type).rpartition(".")[2]))


def _attribute(name: str, value: Any, kind: int) -> onnx.AttributeProto:  # noqa: ANN401 - by kind
    if isinstance(value, torch.dtype) or (kind == AttributeProto.INT and isinstance(value, str)):
        value = tensors.element_type(value)
    elif kind == AttributeProto.TENSOR and isinstance(value, torch.Tensor):
        value = tensors.initializer(name, value)
    elif kind in _NUMBER:
        value = _NUMBER[kind](value)
    elif kind in _NUMBERS:
        value = [_NUMBERS[kind](item) for item in value]
    return helper.make_attribute(name, value, attr_type=kind)


_NUMBER: Mapping[int, type] = {AttributeProto.INT: int, AttributeProto.FLOAT: float}
_NUMBERS: Mapping[int, type] = {AttributeProto.INTS: int, AttributeProto.FLOATS: float}


def _without_trailing_blanks(names: Sequence[str]) -> list[str]:
    kept = list(names)
    while kept and not kept[-1]:
        kept.pop()
    return kept


def _unique(name: str, taken: set[str]) -> str:
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate
