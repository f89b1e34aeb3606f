"""The precision assertion: in what every layer with a weight is to run by the file, and in what its engine runs it.

TensorRT is strongly typed, yet what it has no kernel for it dequantizes and runs wider, without a word.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convkit.compress import nested
from convkit.export import kernels, lint
from convkit.export.tensorrt.dump import EngineLayer

if TYPE_CHECKING:
    import onnx

KERNELS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose precision is planned."""
_GENERATED = ("kgen",)
"""Kinds of layers that the engine writes itself, of what lies between two kernels."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A node of the file: in what it is `planned` to run, and in what the engine's layer `layer` runs it, where it has
    one."""

    node: str
    operator: str
    planned: str
    ran: str | None
    layer: str | None

    @property
    def holds(self) -> bool:
        return self.planned == self.ran

    @property
    def words(self) -> str:
        """For people, where it does not hold."""
        if self.ran is None:
            return f"{self.operator} {self.node!r} is planned in {self.planned}; the engine has no layer for it"
        return f"{self.operator} {self.node!r} is planned in {self.planned} and runs in {self.ran} ({self.layer})"


def planned(model: onnx.ModelProto) -> dict[str, tuple[str, str]]:
    """(operator, format) by name of each node with a weight that is a constant, and of each kernel's of convkit's.

    A node runs in the type of the codes where both what it reads and its weight are dequantized; where only the weight
    is, that saves storage and the node runs in the type of the numbers. What no output hangs on is left out.
    """
    types, makers, held = _types(model), _makers(model), _held(model)
    found = {}
    for node in _alive(model, makers):
        if node.op_type in KERNELS and _weight(node, makers, held) is not None:
            codes = [_codes(name, makers, types) for name in node.input[:2]]
            low = codes[0] if codes[0] == codes[1] else None
            # Behind a layer of the user's own nothing is told of what is read; all that a node reads is of one type.
            kind = next(filter(None, (types.get(name) for name in node.input)), 0)
            found[node.name] = node.op_type, low or _named(kind)
        elif kernels.is_kernels(node):  # what it multiplies with stands last
            found[node.name] = node.op_type, _named(types.get(node.input[-1], 0))
    return found


def compare(
    model: onnx.ModelProto, engine: Sequence[EngineLayer], asked: Mapping[str, str] | None = None
) -> list[Finding]:
    """A Finding for every node of `planned`, in their order; what a plan has `asked` of a node counts for more than
    what the file says."""
    sizes, followers, found = _sizes(model), _followers(model), []
    own = {node.name for node in nested.nodes(model.graph.node) if kernels.is_kernels(node)}
    unnamed = [layer for layer in engine if not layer.nodes and layer.kind not in _GENERATED]
    for name, (operator, number) in planned(model).items():
        size = sizes.get(name, 0)
        kernel = _kernel(name, size, engine)
        if kernel is None:
            kernel = next((layer for layer in unnamed if _holds(layer, size)), None)
            unnamed = [layer for layer in unnamed if layer is not kernel]
        if kernel is None:
            kernel = _written_out(name, size, followers, engine)
        runs = _multiplies_in if name in own else _runs_in
        ran = None if kernel is None else runs(kernel, size)
        wanted = number if asked is None or name in own else asked.get(name, number)
        found.append(Finding(name, operator, wanted, ran, None if kernel is None else kernel.name))
    return found


def _runs_in(layer: EngineLayer, size: int) -> str | None:
    """The type of what a layer multiplies: that of its weight where it reads anything in that, else of what it reads.

    What is added to the products, a residual say, may have another. A layer that the engine writes itself may cast what
    it reads first: it makes the type then.
    """
    read = [tensor.dtype for tensor in layer.inputs if tensor.dtype]
    made = [tensor.dtype for tensor in layer.outputs] if layer.kind in _GENERATED else []
    held = next((constant.dtype for constant in layer.constants if constant.size >= size), None)
    parts = {constant.dtype for constant in layer.constants}
    if held is None and layer.kind in _GENERATED and len(parts) == 1:
        (held,) = parts
    return held if held in (*read, *made) or not read else read[0]


def _multiplies_in(layer: EngineLayer, _: int) -> str | None:
    """The type of a kernel of convkit's: that of its weights, or where it has none of what it reads."""
    held = {constant.dtype for constant in layer.constants} & {"fp32", "fp16", "bf16"}
    return held.pop() if len(held) == 1 else next((tensor.dtype for tensor in layer.inputs if tensor.dtype), None)


def _kernel(node: str, size: int, engine: Sequence[EngineLayer]) -> EngineLayer | None:
    """The layer that computes `node`, whose weight has `size` numbers: that which holds them, not what only scales."""
    own = [layer for layer in engine if node in layer.nodes]
    kernels = [layer for layer in own if layer.kind not in _GENERATED]
    holding = [layer for layer in kernels or own if any(constant.size >= size for constant in layer.constants)]
    return next(iter(holding or kernels or own), None)


def _holds(layer: EngineLayer, size: int) -> bool:
    """Whether a layer that the engine names no node for holds a weight of that many numbers: products that follow each
    other are turned into others, whose weights stay what they are."""
    return any(constant.size == size for constant in layer.constants)


def _written_out(
    node: str, size: int, followers: Mapping[str, Sequence[str]], engine: Sequence[EngineLayer]
) -> EngineLayer | None:
    """The layer that the engine writes itself in which `node` is products and sums with parts of its weight: it names
    what follows the node, and holds as many numbers."""
    after = [node]
    for _ in range(_STEPS):
        after += [name for each in after for name in followers.get(each, ()) if name not in after]
    for layer in engine:
        numbers = sum(constant.size for constant in layer.constants)
        if layer.kind in _GENERATED and numbers >= size and not set(after).isdisjoint(layer.nodes):
            return layer
    return None


_STEPS = 4
"""How far behind a node what names the layer may be: a cast, an activation, a product."""


def _followers(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Names of the nodes that read what each node makes."""
    makers, found = _makers(model), dict[str, list[str]]()
    for node in nested.nodes(model.graph.node):
        for name in node.input:
            if name in makers:
                found.setdefault(makers[name].name, []).append(node.name)
    return found


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type by tensor, as far as the file says, or ONNX's own rules do where it does not."""
    told = _told(model)
    if all(node.input[0] in told for node in nested.nodes(model.graph.node) if node.op_type in KERNELS):
        return told
    return _told(lint.inferred(model))


def _told(model: onnx.ModelProto) -> dict[str, int]:
    graphs = list(nested.graphs(model.graph))
    told = (value for graph in graphs for value in (*graph.input, *graph.output, *graph.value_info))
    return {
        **{value.name: value.type.tensor_type.elem_type for value in told},
        **{tensor.name: tensor.data_type for graph in graphs for tensor in graph.initializer},
    }


def _makers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {out: node for node in nested.nodes(model.graph.node) for out in node.output}


def _codes(name: str, makers: Mapping[str, onnx.NodeProto], types: Mapping[str, int]) -> str | None:
    """The format of the codes that the tensor is dequantized from; None where it is not."""
    maker = next(_backwards(name, makers), None)
    if maker is None or maker.op_type != "DequantizeLinear":
        return None
    return _named(types.get(maker.input[2] if len(maker.input) > 2 else maker.input[0], 0))  # noqa: PLR2004 - x, scale, zero point


def _backwards(name: str, makers: Mapping[str, onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """What makes the tensor, past that which only moves numbers."""
    while name in makers:
        node = makers[name]
        if node.op_type not in _MOVES:
            yield node
        name = node.input[0] if node.input else ""


_MOVES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity")


def _constant(name: str, makers: Mapping[str, onnx.NodeProto], held: frozenset[str]) -> bool:
    while name in makers and makers[name].input:
        name = makers[name].input[0]
    return name in held or (name in makers and makers[name].op_type == "Constant")


def _alive(model: onnx.ModelProto, makers: Mapping[str, onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes that outputs hang on, in their order; engines leave out the others."""
    wanted, seen = [value.name for value in model.graph.output], set[str]()
    while wanted:
        name = wanted.pop()
        if name in makers and name not in seen:
            seen |= set(makers[name].output)
            wanted += nested.reads(makers[name])
    return [node for node in nested.nodes(model.graph.node) if not seen.isdisjoint(node.output)]


def _weight(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], held: frozenset[str]) -> str | None:
    """The operand of `node` that is a constant: the second, or of a MatMul the first."""
    places = (1, 0) if node.op_type == "MatMul" else (1,)
    return next((node.input[place] for place in places if _constant(node.input[place], makers, held)), None)


def _held(model: onnx.ModelProto) -> frozenset[str]:
    return frozenset(tensor.name for graph in nested.graphs(model.graph) for tensor in graph.initializer)


def _sizes(model: onnx.ModelProto) -> dict[str, int]:
    """Numbers in the weight of each node."""
    makers, nodes = _makers(model), list(nested.nodes(model.graph.node))
    sizes = {t.name: math.prod(t.dims) for graph in nested.graphs(model.graph) for t in graph.initializer}
    constants = (node for node in nodes if node.op_type == "Constant")
    sizes |= {node.output[0]: math.prod(a.t.dims) for node in constants for a in node.attribute if a.HasField("t")}
    found = {}
    held = _held(model)
    for node in nodes:
        name = (_weight(node, makers, held) or "") if node.op_type in KERNELS else ""
        while name in makers and makers[name].input:
            name = makers[name].input[0]
        found[node.name] = sizes.get(name, 0)
    return found


def _named(kind: int) -> str:
    """The format of an ONNX element type."""
    import onnx

    name = str(onnx.TensorProto.DataType.Name(kind))
    return _FORMATS.get(name, name.lower())


_FORMATS = {
    "FLOAT": "fp32",
    "FLOAT16": "fp16",
    "BFLOAT16": "bf16",
    "INT8": "int8",
    "FLOAT8E4M3FN": "fp8_e4m3",
    "INT4": "int4",
    "FLOAT4E2M1": "fp4_e2m1",
}
