"""The walk over an ONNX graph: fold what is constant, enter the branch an If takes, make layers and functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor

from convkit.compress import membership, nested, ops
from convkit.compress.errors import ConvkitError
from convkit.compress.model import TensorSpec
from convkit.compress.sources._onnx_graph import Graph, run
from convkit.compress.sources._onnx_layers import layer
from convkit.compress.sources._onnx_names import layer_path
from convkit.compress.sources._onnx_operation import Operation, operation, tensor
from convkit.compress.sources._onnx_opsets import NORMALISED_AWAY, normalised

_KEPT = frozenset({"QuantizeLinear", "DequantizeLinear"})
"""Never folded: they are the only truth about precision."""
_STANDARD = ("", "ai.onnx")


def missing(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Nodes whose operators convkit does not know."""
    known = {*ops.names(), *NORMALISED_AWAY}
    return [node for node in graph.node if node.domain not in _STANDARD or node.op_type not in known]


class Importer:
    """Fills a Graph from a GraphProto."""

    def __init__(self, source: onnx.GraphProto, version: int) -> None:
        self._outputs = {value.name for value in source.output}
        self._consumers = {name: node for node in source.node for name in node.input}
        self.graph = Graph(version, Counter(nested.uses(source)))
        self._absorbed: set[str] = set()
        self._owners: set[str] = set()

    def constants(self, source: onnx.GraphProto) -> None:
        """All initializers and Constant nodes, before any node asks for them."""
        for initializer in source.initializer:
            self.graph.define(initializer.name, tensor(initializer))
        for node in source.node:
            if node.op_type == "Constant" and node.domain in _STANDARD:
                op = operation(node)
                self.graph.define(op.outputs[0], _constant(op))

    def inputs(self, specs: Sequence[TensorSpec], samples: Mapping[str, Tensor]) -> None:
        for spec in specs:
            self.graph.input(spec, samples[spec.name])

    def network(self, source: onnx.GraphProto) -> None:
        """All nodes of the file; what each makes is held until its last reader, as a run of the network holds it."""
        left = Counter(nested.uses(source))
        for node in source.node:
            self._node(node)
            for name in nested.reads(node):
                left[name] -= 1
                if not left[name]:
                    del left[name]
            self.graph.keep(left)

    def _node(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Constant" or node.output[0] in self._absorbed:
            return
        made, self.graph.told = operation(node), membership.meta(node)
        self._require_inputs(made)
        for op in normalised(made, self.graph):
            self._place(op)

    def _require_inputs(self, op: Operation) -> None:
        for name in filter(None, op.inputs):
            if self.graph.known(name) is None:
                self.graph.node(name)

    def _place(self, op: Operation) -> None:
        if op.kind == "If":
            self._enter(op)
        elif op.kind == "Identity" and op.outputs[0] not in self._outputs:
            self.graph.alias(op.outputs[0], op.inputs[0])
        elif op.kind in ("Shape", "Size") and self.graph.static(op.inputs[0]):
            self._fold(op, [self.graph.example(op.inputs[0])])
        elif (values := self._constant_inputs(op)) is not None:
            self._fold(op, values)
        elif not self._layer(op):
            self.graph.call(op, _function(op.kind))

    def _constant_inputs(self, op: Operation) -> list[Tensor | None] | None:
        if op.kind in _KEPT or not op.inputs:
            return None
        values = [self.graph.known(name) if name else None for name in op.inputs]
        complete = all(value is not None for value, name in zip(values, op.inputs, strict=True) if name)
        return values if complete else None

    def _fold(self, op: Operation, values: Sequence[Tensor | None]) -> None:
        function = _function(op.kind)
        result = run(op, lambda: function(*values, **op.attributes))
        results = (result,) if isinstance(result, Tensor) else result
        for name, value in zip(op.outputs, results, strict=False):
            if name:
                self.graph.define(name, value)

    def _enter(self, op: Operation) -> None:
        condition = self.graph.known(op.inputs[0])
        if condition is None:
            raise ConvkitError(
                f"{op} chooses its branch by a value that is only known at run time",
                hint=f"fix the shapes of all inputs, or give the input that {op.inputs[0]!r} depends on a value",
            )
        branch = op.attributes["then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"]
        if unknown := missing(branch):
            raise_missing(unknown)
        self.constants(branch)
        for node in branch.node:
            self._node(node)
        for inner, outer in zip(branch.output, op.outputs, strict=True):
            self._place(Operation("Identity", op.name, [inner.name], [outer]))

    def _layer(self, op: Operation) -> bool:
        add = self._bias(op) if op.kind == "MatMul" else None
        made = layer(op, self.graph, add[0] if add else "")
        if made is None:
            return False
        if add:
            self._absorbed.add(add[1])
            op.outputs = [add[1]]
        source = op.inputs[0]
        name = self._layer_name(op, made.name)
        if made.pads:
            source = self._padded(op, source, made.pads)
        if made.transposed:
            source = self._prepared(op, "Transpose", [source], perm=[1, 0])
        self.graph.call_layer(op, made, source, name)
        return True

    def _layer_name(self, op: Operation, owner: str) -> str:
        """The weights' own name for the layer; where another layer shares them, or they have none, the node's."""
        shared = owner in self._owners
        self._owners.add(owner)
        path = layer_path(op.name, op.kind)
        count = sum(1 for node in self.graph.fx.nodes if node.op == "call_module")
        return (owner if owner and not shared else path or owner) or f"{op.kind.lower()}_{count}"

    def _padded(self, op: Operation, source: str, pads: tuple[int, ...]) -> str:
        rank = len(pads) // 2
        full = torch.tensor([0, 0, *pads[:rank], 0, 0, *pads[rank:]])
        return self._prepared(op, "Pad", [source, self.graph.constant(f"{op.outputs[0]}_pads", full)])

    def _prepared(self, op: Operation, kind: str, inputs: list[str], **attributes: Any) -> str:  # noqa: ANN401
        name = self.graph.fresh(f"{op.outputs[0]}_{kind.lower()}")
        self.graph.call(Operation(kind, op.name, inputs, [name], attributes), _function(kind))
        return name

    def _bias(self, op: Operation) -> tuple[str, str] | None:
        """(bias, result) of the Add that is the only reader of a MatMul and adds one constant a column."""
        product, weight = op.outputs[0], self.graph.known(op.input(1))
        add = self._consumers.get(product)
        if weight is None or add is None or add.op_type != "Add" or self.graph.readers(product) != 1:
            return None
        other = next((name for name in add.input if name != product), "")
        value = self.graph.known(other)
        fits = value is not None and value.shape == weight.shape[-1:] and value.dtype == weight.dtype
        return (other, add.output[0]) if fits else None


def raise_missing(nodes: Sequence[onnx.NodeProto]) -> None:
    """Name every operator that is missing, with the first node that needs it."""
    first: dict[str, str] = {}
    for node in nodes:
        kind = "".join(f"{node.domain}.{node.op_type}".removeprefix(".").split())
        first.setdefault(kind, node.name or (node.output[0] if node.output else ""))
    named = ", ".join(f"{kind} (node {name!r})" for kind, name in first.items())
    raise ConvkitError(
        f"operators that convkit does not know: {named}",
        hint="export the network without them, or in standard operators",
    )


def _constant(op: Operation) -> Tensor:
    """The one value that a Constant node holds, whichever attribute it is in."""
    if len(op.attributes) != 1:
        raise ConvkitError(f"{op} holds {len(op.attributes)} values, not one", hint="export the model again")
    ((name, value),) = op.attributes.items()
    if isinstance(value, Tensor):
        return value
    types = {"value_int": torch.int64, "value_ints": torch.int64, "value_float": torch.float32}
    if name not in {*types, "value_floats"}:
        raise ConvkitError(
            f"{op} holds a {name!r}, which is no tensor of numbers", hint="convkit runs networks of numbers only"
        )
    return torch.tensor(value, dtype=types.get(name, torch.float32))


def _function(kind: str) -> Callable[..., Any]:
    function = ops.find(kind)
    if function is None:
        raise ConvkitError(f"operator {kind} is not known", hint="export the network in other operators")
    return function
