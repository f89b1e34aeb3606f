"""Operators of older opsets in the form of opset 21: one small function per operator that changed.

A rule takes an Operation and returns those that stand for it; a new constant is an input by name like any other.
"""
# ruff: noqa: ARG001, PLR2004 - every rule is asked alike, and an opset is a number

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from convkit.compress.errors import ConvkitError
from convkit.compress.sources._onnx_operation import Operation


class Surroundings(Protocol):
    """What a rule may ask of the graph it stands in."""

    version: int

    def constant(self, near: str, value: Tensor) -> str:
        """A name for a new constant, made from the tensor name `near`."""

    def fresh(self, near: str) -> str:
        """A name that no tensor has yet."""

    def known(self, name: str) -> Tensor | None:
        """The value of a constant, None for anything else."""

    def example(self, name: str) -> Tensor:
        """What the tensor is on the sample inputs: its rank and type always hold, its sizes where `static`."""

    def static(self, name: str) -> bool:
        """Whether the tensor has one shape whatever the inputs' free dimensions are."""

    def is_read(self, name: str) -> bool:
        """Whether anything uses the tensor."""


Rule = Callable[[Operation, Surroundings], list[Operation]]


def normalised(operation: Operation, graph: Surroundings) -> list[Operation]:
    """`operation` in opset-21 form; raises ConvkitError for a use that has none."""
    rule = RULES.get(operation.kind)
    return rule(operation, graph) if rule else [operation]


def _to_inputs(op: Operation, graph: Surroundings, names: Sequence[str], first: int = 1) -> None:
    """The attributes `names`, lists of integers, become the inputs from `first` on."""
    for index, name in enumerate(names, first):
        if name in op.attributes:
            value = torch.tensor(op.attributes.pop(name), dtype=torch.int64)
            op.with_input(index, graph.constant(f"{op.outputs[0]}_{name}", value))


def _single_output(op: Operation, graph: Surroundings) -> None:
    read = [name for name in op.outputs[1:] if name and graph.is_read(name)]
    if read:
        raise ConvkitError(
            f"{op}: convkit computes its first output only, and the graph reads {read[0]!r}",
            hint="export the network in evaluation mode",
        )
    del op.outputs[1:]


def _axes(newest: int) -> Rule:
    def rule(op: Operation, graph: Surroundings) -> list[Operation]:
        if graph.version < newest:
            _to_inputs(op, graph, ["axes"])
        return [op]

    return rule


def _slice(op: Operation, graph: Surroundings) -> list[Operation]:
    if graph.version < 10:
        _to_inputs(op, graph, ["starts", "ends", "axes"])
    return [op]


def _split(op: Operation, graph: Surroundings) -> list[Operation]:
    if graph.version < 13:
        _to_inputs(op, graph, ["split"])
    if not op.input(1):
        op.attributes.setdefault("num_outputs", len(op.outputs))
    return [op]


def _top_k(op: Operation, graph: Surroundings) -> list[Operation]:
    if "k" in op.attributes:
        k = torch.tensor([op.attributes.pop("k")], dtype=torch.int64)
        op.with_input(1, graph.constant(f"{op.outputs[0]}_k", k))
    return [op]


def _clip(op: Operation, graph: Surroundings) -> list[Operation]:
    for index, name in enumerate(("min", "max"), 1):
        if name in op.attributes:
            bound = torch.tensor(op.attributes.pop(name), dtype=graph.example(op.inputs[0]).dtype)
            op.with_input(index, graph.constant(f"{op.outputs[0]}_{name}", bound))
    return [op]


def _pad(op: Operation, graph: Surroundings) -> list[Operation]:
    if graph.version < 11:
        _to_inputs(op, graph, ["pads"])
        if value := op.attributes.pop("value", 0.0):
            fill = torch.tensor(value, dtype=graph.example(op.inputs[0]).dtype)
            op.with_input(2, graph.constant(f"{op.outputs[0]}_value", fill))
    return [op]


def _upsample(op: Operation, graph: Surroundings) -> list[Operation]:
    """A Resize of opset 10, which says nothing of rounding, is rounded up along axes that shrink, as engines do."""
    scales = graph.known(op.inputs[1]) if op.input(1) and op.attributes.get("mode", "nearest") == "nearest" else None
    if scales is None or not bool((scales < 1).any()):
        return [_asymmetric(op, op.inputs[0], op.input(1), op.outputs, "floor")]
    result, grown = op.outputs[0], graph.fresh(f"{op.outputs[0]}_grown")
    more, less = (graph.constant(f"{result}_scales", part) for part in (scales.clamp(min=1), scales.clamp(max=1)))
    if bool((scales <= 1).all()):
        return [_asymmetric(op, op.inputs[0], less, op.outputs, "ceil")]
    return [
        _asymmetric(op, op.inputs[0], more, [grown], "floor"),
        _asymmetric(op, grown, less, op.outputs, "ceil"),
    ]


def _asymmetric(op: Operation, x: str, scales: str, outputs: list[str], rounding: str) -> Operation:
    places = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": rounding}
    return Operation("Resize", op.name, [x, "", scales], outputs, op.attributes | places)


_HALF_PIXEL = {"floor": "round_prefer_ceil", "round_prefer_floor": "ceil"}
"""The nearest of (i + 0.5) / scale by that of half a pixel less."""


def _resize(op: Operation, graph: Surroundings) -> list[Operation]:
    if graph.version < 11:
        return _upsample(op, graph)
    for index in range(1, len(op.inputs)):
        value = graph.known(op.inputs[index])
        if value is not None and value.numel() == 0:
            op.inputs[index] = ""
    if op.attributes.get("coordinate_transformation_mode") == "tf_half_pixel_for_nn":
        mode, usual = op.attributes.get("mode", "nearest"), op.attributes.get("nearest_mode", "round_prefer_floor")
        if mode != "nearest" or usual not in _HALF_PIXEL:
            what = usual if mode == "nearest" else mode
            raise ConvkitError(f"{op} is {what!r} at places of TensorFlow's nearest", hint="export it with floor")
        op.attributes |= {"coordinate_transformation_mode": "half_pixel", "nearest_mode": _HALF_PIXEL[usual]}
    if op.attributes.get("coordinate_transformation_mode") != "tf_crop_and_resize" and op.input(1):
        op.inputs[1] = ""
    return [op]


def _softmax(op: Operation, graph: Surroundings) -> list[Operation]:
    """Before opset 13 softmax ran over all dimensions from `axis` on (default 1), as if they were one."""
    if graph.version >= 13:
        return [op]
    source, result = op.inputs[0], op.outputs[0]
    x = graph.example(source)
    axis = op.attributes.get("axis", 1) % max(x.ndim, 1)
    if axis == x.ndim - 1:
        op.attributes["axis"] = -1
        return [op]
    flat, soft = graph.fresh(f"{result}_flat"), graph.fresh(f"{result}_soft")
    shape = graph.fresh(f"{result}_shape")
    return [
        Operation("Shape", op.name, [source], [shape]),
        Operation("Flatten", op.name, [source], [flat], {"axis": axis}),
        Operation(op.kind, op.name, [flat], [soft], {"axis": -1}),
        Operation("Reshape", op.name, [soft, shape], [result]),
    ]


def _dropout(op: Operation, graph: Surroundings) -> list[Operation]:
    """In evaluation mode nothing is dropped, whatever the file says of training."""
    _single_output(op, graph)
    return [Operation("Identity", op.name, op.inputs[:1], op.outputs)]


def _batch_norm(op: Operation, graph: Surroundings) -> list[Operation]:
    if op.attributes.pop("training_mode", 0):
        raise ConvkitError(f"{op} is in training mode", hint="export the network in evaluation mode")
    _single_output(op, graph)
    op.attributes.pop("spatial", None)
    return [op]


def _grid_sample(op: Operation, graph: Surroundings) -> list[Operation]:
    mode = op.attributes.get("mode", "linear")
    op.attributes["mode"] = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    return [op]


def _scatter(op: Operation, graph: Surroundings) -> list[Operation]:
    op.kind = "ScatterElements"
    return [op]


def _constant_of_shape(op: Operation, graph: Surroundings) -> list[Operation]:
    """A scalar expanded: a Model has no tensors among its attributes."""
    value = op.attributes.get("value", torch.zeros(1)).reshape(())
    scalar = graph.constant(f"{op.outputs[0]}_value", value)
    return [Operation("Expand", op.name, [scalar, op.inputs[0]], op.outputs)]


def _first_output(op: Operation, graph: Surroundings) -> list[Operation]:
    _single_output(op, graph)
    return [op]


_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

RULES: dict[str, Rule] = {
    **{f"Reduce{name}": _axes(18) for name in _REDUCTIONS},
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "ConstantOfShape": _constant_of_shape,
    "Dropout": _dropout,
    "GridSample": _grid_sample,
    "Hardmax": _softmax,
    "LayerNormalization": _first_output,
    "LogSoftmax": _softmax,
    "MaxPool": _first_output,
    "Pad": _pad,
    "ReduceSum": _axes(13),
    "Resize": _resize,
    "Scatter": _scatter,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Squeeze": _axes(13),
    "TopK": _top_k,
    "Unsqueeze": _axes(13),
    "Upsample": _upsample,
}
"""What changed since opset 9. Constant, If and Identity are the graph's own matter."""
NORMALISED_AWAY = frozenset({"Constant", "ConstantOfShape", "Dropout", "Identity", "If", "Scatter", "Upsample"})
"""Operators that a file may hold and a Model does not."""
