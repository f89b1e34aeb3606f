"""A Model as an ONNX file: one node for one node, names kept, the same bytes for the same Model."""

import operator as python_operator
from typing import Any

import onnx
from onnx import helper
from torch import Tensor, fx, nn

import convkit
from convkit.compress import format as formats
from convkit.compress import graph as graphs
from convkit.compress import membership, pads, pairs, weights
from convkit.compress.errors import ConvkitError
from convkit.compress.floating import ExMy
from convkit.compress.model import Model, with_shapes
from convkit.export import layers, packing, tensors
from convkit.export.graph import GraphWriter

OLDEST_OPSET = 18
"""Before it, Split, Pad, Resize and the reductions take their attributes in other ways than a Model holds them."""

_TWO_GIB = 2**31
_LAYERED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization")
"""Operators that are a layer of the source even as function nodes; their nodes bear the layer's name."""


def to_onnx(model: Model, opset: int = 21) -> onnx.ModelProto:
    """`model` in operators of ai.onnx `opset`, raised to the newest operator's where one came later.

    Raises ConvkitError where the opset is too old for what the network holds.
    """
    if opset < OLDEST_OPSET:
        raise ConvkitError(f"convkit writes no opset {opset}", hint=f"give {OLDEST_OPSET} or later")
    if _lacks_shapes(model):
        with_shapes(model)
    writer = _ModelWriter(model, GraphWriter(opset))
    writer.write()
    return _with_value_info(_assemble(model, writer.graph))


def size_in_bytes(model: onnx.ModelProto) -> int:
    """Bytes of the initializers, in all but a few kilobytes the size of the file."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


class _ModelWriter:
    """Walks one FX graph; `tensor` maps its nodes to tensor names of the file."""

    def __init__(self, model: Model, graph: GraphWriter) -> None:
        self.model, self.graph = model, graph
        self.pads = pads.mergeable(model.graph)
        self.tensor: dict[fx.Node, str] = {}
        self._name_values()

    def write(self) -> None:
        for node in self.model.graph.graph.nodes:
            self.graph.told = membership.metadata(node.meta)
            if node.op == "call_module":
                self._layer(node)
            elif node.op == "call_function" and node not in self.pads and node.target is not python_operator.getitem:
                self._function(node)
            elif node.op == "output":
                self._outputs(node)

    def _name_values(self) -> None:
        """Names of inputs, outputs and intermediate tensors, before any initializer can take them.

        A tensor that leaves the graph bears the output's name.
        """
        nodes = [node for node in self.model.graph.graph.nodes if node.op not in ("get_attr", "output")]
        placeholders = (node for node in nodes if node.op == "placeholder")
        self.tensor |= dict(zip(placeholders, (spec.name for spec in self.model.inputs), strict=True))
        for node, spec in zip(_results(self.model), self.model.outputs, strict=True):
            if node.op not in ("placeholder", "get_attr"):
                self.tensor.setdefault(node, spec.name)
        self.graph.reserve([spec.name for spec in (*self.model.inputs, *self.model.outputs)])
        for node in nodes:
            if node not in self.tensor and node not in self.pads:
                self.tensor[node] = self.graph.value_name(_value(node))

    def _layer(self, node: fx.Node) -> None:
        layer = self.model.graph.get_submodule(str(node.target))
        (source,) = node.all_input_nodes
        rank = len(source.meta["tensor"].shape) if isinstance(layer, nn.Linear) else 0
        extra = self.pads.get(source, [])
        layers.write_layer(self.graph, layer, str(node.target), self._input(source), self.tensor[node], extra, rank)

    def _function(self, node: fx.Node) -> None:
        operator, attributes = graphs.operator(node), dict(node.kwargs)
        if node.target is ExMy:
            raise ConvkitError(
                f"tensor {_value(node)!r} is in a format that ONNX has no type for",
                hint="it can be simulated; to export it, plan its layers' activations in fp8_e4m3, uint8 or fp32",
            )
        if node.meta.get(pairs.BY_ENGINE):
            self.tensor[node] = self._input(node.args[0])
            return
        source = node.args[0] if node.args else None
        if isinstance(source, fx.Node) and source in self.pads:
            attributes["pads"] = pads.merged(attributes.get("pads"), self.pads[source])
        if operator == "Clip" and any(_rounds_to_float(user) for user in node.users):
            self._clip(node)
            return
        layer = node.meta.get("layer") if operator in _LAYERED else None
        inputs, results = [self._input(argument) for argument in node.args], self._results(node)
        self.graph.node(operator, layer or next(filter(None, results), _value(node)), inputs, results, **attributes)

    def _clip(self, node: fx.Node) -> None:
        """Clip as Max and Min: in front of a QuantizeLinear to float8 ONNX Runtime fails to open it."""
        bounds = [
            (kind, bound) for kind, bound in zip(("Max", "Min"), node.args[1:3], strict=False) if bound is not None
        ]
        name, result = self._input(node.args[0]), self.tensor[node]
        for kind, bound in bounds:
            last = kind == bounds[-1][0]
            made = result if last else self.graph.value_name(f"{result}.{kind.lower()}")
            self.graph.node(kind, made, [name, self._input(bound)], [made])
            name = made

    def _results(self, node: fx.Node) -> list[str]:
        """Output names; those that nobody reads are blank, except where their number matters (Split)."""
        if not _is_multiple(node):
            return [self.tensor[node]]
        picked = {int(user.args[1]): self.tensor[user] for user in node.users}  # type: ignore[arg-type]
        count = max(_split_count(node), *(index + 1 for index in picked))
        return [picked[i] if i in picked else self._unread(node, i) for i in range(count)]

    def _unread(self, node: fx.Node, index: int) -> str:
        return self.graph.value_name(f"{_value(node)}.{index}") if graphs.operator(node) == "Split" else ""

    def _input(self, argument: Any) -> str:  # noqa: ANN401 - an fx argument
        if argument is None:
            return ""
        if argument in self.pads:
            return self._input(argument.args[0])
        if argument.op != "get_attr":
            return self.tensor[argument]
        held = graphs.constant(argument)
        if held is None:
            raise TypeError(f"constant {argument.target!r} is no tensor")
        return self._constant(argument, held)

    def _constant(self, node: fx.Node, held: Tensor) -> str:
        """The name of a constant; a weight in fewer bits than its type has is packed, once for all who read it."""
        packed = node.meta.get(weights.FORMAT)
        if packed is None or not packing.worth_it(number := formats.load(packed), held):
            return self.graph.initializer(_value(node), held)
        if node not in self.tensor:
            self.tensor[node] = packing.write(self.graph, _value(node), held, number)
        return self.tensor[node]

    def _outputs(self, _: fx.Node) -> None:
        """An output that is a graph input, a constant or a tensor with another name is copied to its name."""
        for node, spec in zip(_results(self.model), self.model.outputs, strict=True):
            source = self._input(node)
            if source != spec.name:
                self.graph.node("Identity", spec.name, [source], [spec.name])


def _results(model: Model) -> tuple[fx.Node, ...]:
    (results,) = next(node for node in model.graph.graph.nodes if node.op == "output").args
    return tuple(results) if isinstance(results, tuple | list) else (results,)


def _value(node: fx.Node) -> str:
    return str(node.meta.get("value") or node.name)


def _rounds_to_float(node: fx.Node) -> bool:
    """Whether `node` is a QuantizeLinear to float8."""
    zero = graphs.constant(node.args[2]) if graphs.operator(node) == "QuantizeLinear" and len(node.args) > 2 else None  # noqa: PLR2004 - x, scale, zero point
    return zero is not None and zero.is_floating_point()


def _is_multiple(node: fx.Node) -> bool:
    return bool(node.users) and all(user.target is python_operator.getitem for user in node.users)


def _split_count(node: fx.Node) -> int:
    if graphs.operator(node) != "Split":
        return 1
    sizes = graphs.constant(pads.argument(node, 1))
    return int(node.kwargs.get("num_outputs") or 1) if sizes is None else sizes.numel()  # type: ignore[arg-type]


def _lacks_shapes(model: Model) -> bool:
    """Whether a node lacks the shape that decides how its reader is written."""
    nodes = model.graph.graph.nodes
    linear = (node.args[0] for node in nodes if node.op == "call_module" and _is_linear(model, node))
    padded = (node for node in nodes if graphs.operator(node) == "Pad")
    return any("tensor" not in node.meta for node in (*linear, *padded))


def _is_linear(model: Model, node: fx.Node) -> bool:
    return isinstance(model.graph.get_submodule(str(node.target)), nn.Linear)


def _assemble(model: Model, graph: GraphWriter) -> onnx.ModelProto:
    inputs, outputs = ([tensors.value_info(spec) for spec in specs] for specs in (model.inputs, model.outputs))
    proto = helper.make_graph(graph.nodes, model.name, inputs, outputs, graph.initializers)
    opsets = [helper.make_opsetid("", graph.opset)]
    return helper.make_model(
        proto,
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="convkit",
        producer_version=convkit.__version__,
    )


def _with_value_info(model: onnx.ModelProto) -> onnx.ModelProto:
    """Shapes of every tensor, for readers of the file; a file that protobuf cannot hold in one piece goes without."""
    if size_in_bytes(model) >= _TWO_GIB:
        return model
    return onnx.shape_inference.infer_shapes(model, data_prop=True)
