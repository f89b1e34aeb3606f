"""The FX graph in the making: every node is run on the sample inputs as it is made.

So a broken node is found where it stands, ranks and types are known to whoever asks, and no separate shape inference
is needed.
"""

from __future__ import annotations

import inspect
import keyword
import operator
from collections import Counter
from collections.abc import Callable, Container, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from convkit.compress.errors import ConvkitError
from convkit.compress.model import TensorSpec
from convkit.compress.sources._onnx_guard import bounded, require_bounded
from convkit.compress.sources._onnx_layers import Layer
from convkit.compress.sources._onnx_names import Tree, layer_path
from convkit.compress.sources._onnx_operation import Operation

_REDUCE = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
SETTINGS: Mapping[str, frozenset[int]] = {
    "Clip": frozenset({1, 2}),
    "CumSum": frozenset({1}),
    "DequantizeLinear": frozenset({0, 1, 2}),
    "Expand": frozenset({1}),
    "OneHot": frozenset({1, 2}),
    "Pad": frozenset({1, 2, 3}),
    "QuantizeLinear": frozenset({1, 2}),
    "Range": frozenset({0, 1, 2}),
    "Reshape": frozenset({1}),
    "Resize": frozenset({1, 2, 3}),
    "Slice": frozenset({1, 2, 3, 4}),
    "Split": frozenset({1}),
    "Squeeze": frozenset({1}),
    "Tile": frozenset({1}),
    "TopK": frozenset({1}),
    "Trilu": frozenset({1}),
    "Unsqueeze": frozenset({1}),
    **{f"Reduce{name}": frozenset({1}) for name in _REDUCE},
}
"""Inputs that say how rather than what: never trained, and where one is computed the result's shape is free."""
_FREE_SHAPE = frozenset({"Compress", "NonZero"})
_WEIGHTED = frozenset(
    {"BatchNormalization", "Conv", "ConvTranspose", "DequantizeLinear", "Div", "Einsum", "GRU", "Gemm"}
    | {"GroupNormalization", "InstanceNormalization", "LSTM", "LayerNormalization", "MatMul", "Mul", "PRelu"}
    | {"QuantizeLinear", "RMSNormalization", "RNN"}
)
"""Here infinity is a broken weight; in an Add or a Where it may be a mask."""


class Graph:
    """Values by their ONNX names: constants as tensors, everything else as FX nodes with their examples."""

    def __init__(self, version: int, readers: Counter[str]) -> None:
        self.version = version
        self.fx, self.tree = fx.Graph(), Tree()
        self._readers = readers
        self._constants: dict[str, Tensor] = {}
        self._nodes: dict[str, fx.Node] = {}
        self._examples: dict[fx.Node, Any] = {}
        self._whole: set[fx.Node] = set()
        """Nodes whose examples are numbers still, not sizes and types alone."""
        self._names: dict[fx.Node, list[str]] = {}
        self._static: set[fx.Node] = set()
        self._attributes: dict[str, fx.Node] = {}
        self._parameters: dict[tuple[str, str], nn.Parameter] = {}
        self._taken: set[str] = set(readers)
        self.told: Mapping[str, str] = {}
        """What the file says of the next nodes, as `membership` has it."""

    def input(self, spec: TensorSpec, sample: Tensor) -> None:
        """A placeholder for `spec`."""
        wanted = "".join(c if c.isalnum() else "_" for c in spec.name)
        used = {node.target for node in self.fx.nodes}
        valid = wanted.isidentifier() and not keyword.iskeyword(wanted) and wanted not in used
        node = self.fx.placeholder(wanted if valid else f"input_{len(used)}")
        if all(isinstance(dim, int) for dim in spec.shape):
            self._static.add(node)
        self._bind(node, spec.name, sample, "")

    def constant(self, near: str, value: Tensor) -> str:
        """A name, as `near` as is free, for a new constant."""
        name = self.fresh(near)
        self._constants[name] = value
        return name

    def define(self, name: str, value: Tensor) -> None:
        """The value of a constant that the file itself names."""
        self._nodes.pop(name, None)
        self._attributes.pop(name, None)
        self._constants[name] = value
        self._taken.add(name)

    def alias(self, name: str, source: str) -> None:
        """From here on `name` means what `source` means."""
        if source in self._constants:
            self.define(name, self._constants[source])
            return
        self._constants.pop(name, None)
        self._call(name, self.node(source))

    def fresh(self, near: str) -> str:
        name, number = near, 1
        while name in self._taken:
            number += 1
            name = f"{near}_{number}"
        self._taken.add(name)
        return name

    def known(self, name: str) -> Tensor | None:
        return self._constants.get(name)

    def example(self, name: str) -> Tensor:
        if name in self._constants:
            return self._constants[name]
        result: Tensor = self._examples[self.node(name)]
        return result

    def static(self, name: str) -> bool:
        return name in self._constants or self.node(name) in self._static

    def is_read(self, name: str) -> bool:
        return self._readers[name] > 0

    def readers(self, name: str) -> int:
        """How many inputs and outputs use the tensor."""
        return self._readers[name]

    def keep(self, names: Container[str]) -> None:
        """Forget the numbers of all that none of the tensors `names` is: nobody reads them any more."""
        means = {node: [name for name in self._names.get(node, ()) if name in names] for node in self._whole}
        kept = {node for node, found in means.items() if any(self._nodes.get(name) is node for name in found)}
        for node in self._whole - kept:
            example = self._examples[node]
            self._examples[node] = example.to("meta") if isinstance(example, Tensor) else None
        self._whole &= kept

    def node(self, name: str) -> fx.Node:
        """The FX node of a tensor; a constant becomes a get_attr node that cannot be trained."""
        if name in self._nodes:
            return self._nodes[name]
        if name not in self._constants:
            raise ConvkitError(f"tensor {name!r} is used but never made", hint="export the model again")
        if name not in self._attributes:
            self._attributes[name] = self._hold(name, trainable=False)
        return self._attributes[name]

    def parameter(self, name: str, role: str = "", change: Callable[[Tensor], Tensor] | None = None) -> nn.Parameter:
        key = (name, role)
        if key not in self._parameters:
            value = self._constants[name]
            self._require_finite(name, value)
            self._parameters[key] = nn.Parameter(change(value) if change else value)
        return self._parameters[key]

    def call(self, op: Operation, function: Callable[..., Any]) -> None:
        """A function node for `op`, and a getitem node for each of its several outputs that is read."""
        _check_attributes(op, function)
        args = tuple(self._argument(op, index) for index in range(len(op.inputs)))
        values = [self._examples[a] if isinstance(a, fx.Node) else None for a in args]
        result = run(op, lambda: function(*values, **op.attributes))
        layer = layer_path(op.name, op.kind)
        node = self.fx.call_function(function, args, op.attributes)
        node.meta |= self.told
        free = op.kind in _FREE_SHAPE or self._is_computed(op)
        if not free and all(a in self._static for a in args if isinstance(a, fx.Node)):
            self._static.add(node)
        if isinstance(result, Tensor):
            self._bind(node, op.outputs[0], result, layer)
            return
        node.meta["layer"] = layer
        self._examples[node] = result
        self._whole.add(node)
        self._pick(op, node, result, layer)

    def _pick(self, op: Operation, node: fx.Node, result: tuple[Tensor, ...], layer: str) -> None:
        for index, name in enumerate(op.outputs):
            if not name or (index and not self.is_read(name)):
                continue
            if index >= len(result):
                raise ConvkitError(
                    f"{op} makes {len(result)} outputs, not {len(op.outputs)}", hint="export the model again"
                )
            picked = self.fx.call_function(operator.getitem, (node, index))
            if node in self._static:
                self._static.add(picked)
            self._bind(picked, name, result[index], layer)

    def call_layer(self, op: Operation, layer: Layer, source: str, name: str) -> None:
        """A module node; `name` is where the layer hangs if that is free."""
        path = self.tree.add_layer(name, layer.module)
        before = self.node(source)
        result = run(op, lambda: layer.module(self._examples[before]))
        node = self.fx.call_module(path, (before,))
        node.meta |= self.told
        if before in self._static:
            self._static.add(node)
        self._bind(node, op.outputs[0], result, path)

    def _argument(self, op: Operation, index: int) -> fx.Node | None:
        name = op.inputs[index]
        if not name:
            return None
        value = self._constants.get(name)
        if value is None or not value.is_floating_point():
            return self.node(name)
        wide = _in_full(value)
        finite = bool(torch.isfinite(wide).all())
        if not finite and (op.kind in _WEIGHTED or (value.numel() > 1 and bool(torch.isnan(wide).any()))):
            self._require_finite(name, wide)
        if name not in self._attributes:
            much = value.numel() > 1 or op.kind == "PRelu"
            trainable = finite and much and index not in SETTINGS.get(op.kind, ())
            self._attributes[name] = self._hold(name, trainable=trainable)
        return self._attributes[name]

    def _hold(self, name: str, *, trainable: bool) -> fx.Node:
        value = self._constants[name]
        path = self.tree.add_constant(name, self.parameter(name) if trainable else value)
        node = self.fx.get_attr(path)
        self._static.add(node)
        spec = TensorSpec(name, tuple(value.shape), str(value.dtype).removeprefix("torch."), tuple(value.shape))
        node.meta |= {"value": name, "layer": "", "tensor": spec}
        self._examples[node] = value
        return node

    def _require_finite(self, name: str, value: Tensor) -> None:
        count = int((~torch.isfinite(value)).sum())
        if count:
            raise ConvkitError(
                f"weight {name!r} holds {count} NaN or infinite of {value.numel()} values",
                hint="the training diverged or the file is damaged; take an earlier checkpoint",
            )

    def _is_computed(self, op: Operation) -> bool:
        settings = (op.input(index) for index in SETTINGS.get(op.kind, ()))
        return any(name and name not in self._constants for name in settings)

    def _bind(self, node: fx.Node, name: str, example: Tensor, layer: str) -> None:
        # Branches of two Ifs may use one name; in the one graph it belongs to the first.
        used = {n.meta.get("value") for n in self._nodes.values()} if name in self._nodes else ()
        value = self.fresh(name) if name in used else name
        shape = tuple(example.shape)
        spec = TensorSpec(value, shape, str(example.dtype).removeprefix("torch."), shape)
        node.meta |= {"value": value, "layer": layer, "tensor": spec}
        self._examples[node] = example
        self._whole.add(node)
        self._constants.pop(name, None)
        self._call(name, node)

    def _call(self, name: str, node: fx.Node) -> None:
        self._nodes[name] = node
        self._names.setdefault(node, []).append(name)


def _in_full(value: Tensor) -> Tensor:
    """`value` in a type that all operators take: numbers of eight bits have few."""
    return value.float() if value.itemsize == 1 else value


def run(op: Operation, call: Callable[[], Any]) -> Any:  # noqa: ANN401 - a tensor or a tuple of them
    """`call` on the sample inputs; whatever fails in it is the fault of the file or of the sample shapes."""
    try:
        with torch.no_grad(), bounded():
            result = call()
        # An expanded tensor costs nothing until it is written down.
        require_bounded(result)
        return result
    except ConvkitError:
        raise
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConvkitError(
            f"{op} does not run on the sample inputs: {first}",
            hint="give input shapes that the network takes, or export it again",
        ) from error


def _check_attributes(op: Operation, function: Callable[..., Any]) -> None:
    parameters = inspect.signature(function).parameters.values()
    known = {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    for name in op.attributes:
        if name not in known:
            raise ConvkitError(f"{op} has attribute {name!r}, which convkit does not know", hint="export it without")
