"""One ONNX node as plain Python: an Operation; and ONNX tensors as torch tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from onnx import AttributeProto, TensorProto, numpy_helper
from torch import Tensor

from convkit.compress.errors import ConvkitError

_BITS = {
    "bfloat16": (np.uint16, torch.bfloat16),
    "float8_e4m3fn": (np.uint8, torch.float8_e4m3fn),
    "float8_e4m3fnuz": (np.uint8, torch.float8_e4m3fnuz),
    "float8_e5m2": (np.uint8, torch.float8_e5m2),
    "float8_e5m2fnuz": (np.uint8, torch.float8_e5m2fnuz),
}
"""Types that numpy does not know; their bits pass through an integer type."""


@dataclass(slots=True)
class Operation:
    """An operator, the names of its inputs ("" where absent) and outputs, and its attributes as Python values."""

    kind: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        label = self.name or next((output for output in self.outputs if output), "")
        return f"{self.kind} {label!r}"

    def input(self, index: int) -> str:
        return self.inputs[index] if index < len(self.inputs) else ""

    def with_input(self, index: int, name: str) -> None:
        self.inputs += [""] * (index + 1 - len(self.inputs))
        self.inputs[index] = name


def operation(node: onnx.NodeProto) -> Operation:
    """`node` without trailing absent inputs; Raises ConvkitError for an attribute of a type no operator here takes."""
    inputs = list(node.input)
    while inputs and not inputs[-1]:
        inputs.pop()
    made = Operation(node.op_type, node.name, inputs, list(node.output))
    for attribute in node.attribute:
        made.attributes[attribute.name] = _value(attribute, made)
    return made


def _value(attribute: AttributeProto, owner: Operation) -> Any:  # noqa: ANN401 - an attribute is of many types
    plain: dict[int, Callable[[], Any]] = {
        AttributeProto.INT: lambda: attribute.i,
        AttributeProto.FLOAT: lambda: _number(attribute.f),
        AttributeProto.STRING: lambda: attribute.s.decode(errors="replace"),
        AttributeProto.INTS: lambda: list(attribute.ints),
        AttributeProto.FLOATS: lambda: [_number(value) for value in attribute.floats],
        AttributeProto.STRINGS: lambda: [value.decode(errors="replace") for value in attribute.strings],
        AttributeProto.TENSOR: lambda: tensor(attribute.t),
        AttributeProto.GRAPH: lambda: attribute.g,
    }
    if attribute.type not in plain:
        raise ConvkitError(
            f"{owner}: attribute {attribute.name!r} has a type that convkit does not read", hint="export it without"
        )
    return plain[attribute.type]()


def _number(value: float) -> float:
    """The shortest decimal that is this float32: 0.1 rather than 0.10000000149011612."""
    return float(str(np.float32(value))) if math.isfinite(value) else value


def tensor(proto: TensorProto) -> Tensor:
    """The values of `proto`; raises ConvkitError where type, dimensions and data do not fit together."""
    try:
        values = np.array(numpy_helper.to_array(proto), order="C")
    except (ValueError, TypeError, KeyError, OverflowError, MemoryError, AttributeError) as error:
        raise ConvkitError(f"tensor {proto.name!r} is broken: {error}", hint="export the model again") from error
    name = values.dtype.name
    if name in _BITS:
        integer, dtype = _BITS[name]
        bits: Tensor = torch.from_numpy(values.view(integer))
        return bits.view(dtype)
    try:
        return torch.from_numpy(values)
    except TypeError as error:
        raise ConvkitError(
            f"tensor {proto.name!r} has type {name}, which convkit does not read", hint="store it in another type"
        ) from error


def dtype_name(element: int) -> str:
    """numpy's name of a TensorProto.DataType, or "" for a type that torch does not know."""
    try:
        name = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(element)).name
    except (KeyError, TypeError, ValueError):
        return ""
    return name if isinstance(getattr(torch, name, None), torch.dtype) else ""
