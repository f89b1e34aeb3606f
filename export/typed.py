"""Layers that a file rounds to a 16-bit float and back become layers in that type, for strongly typed engines.

A plan's fp16 or bf16 stands in the file as two casts in front of a float32 operator, whose weight is cast too: right
numbers everywhere, and float32 kernels. Here the operator reads what was stored in between, and makes the same type;
what follows it does too as long as everyone who reads it rounds it to that type anyway. Sums are an engine's own: they
are float32 in the convolutions and products of all that convkit knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_WORDS = """
Add Sub Mul Div Relu Clip LeakyRelu PRelu Elu Sigmoid HardSigmoid HardSwish Tanh Gelu Erf Max Min Neg Abs Sqrt MaxPool
AveragePool GlobalAveragePool GlobalMaxPool ReduceMean Concat Reshape Flatten Squeeze Unsqueeze Transpose Slice Split
Resize DepthToSpace SpaceToDepth Pad Identity Expand Softmax
"""
_FOLLOW = frozenset(_WORDS.split())
"""Operators whose result in 16 bits is their float32 result rounded once: they sum nothing, or little."""
_SHAPED = {"Resize": (0,), "Reshape": (0,), "Slice": (0,), "Expand": (0,), "ReduceMean": (0,), "Split": (0,)}
_EXACT = "Relu Clip MaxPool GlobalMaxPool Max Min Concat Reshape Flatten Squeeze Unsqueeze Transpose Slice DepthToSpace"
_MONOTONE = frozenset(_EXACT.split())
"""Operators with which rounding commutes: rounded before or behind them, the numbers are the same."""
_FIRST = ("Squeeze", "Unsqueeze", "Flatten", "Transpose")
_PADDED = (0, 2)
"""Inputs of Pad that are numbers."""


def typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` with its layers in fp16 and bf16 in these types. Its inputs and outputs keep theirs."""
    import onnx

    own = onnx.ModelProto()
    own.CopyFrom(model)
    if not any(node.op_type == "Cast" and _to(node) in _halves() for node in own.graph.node):
        return own
    graph = _Graph.of(own)
    for node in list(graph.nodes):
        if node.op_type in _LAYERS:
            graph.retype_layer(node)
    graph.wanted = dict(graph.wishes())
    for node in list(graph.nodes):  # in execution order, so one pass reaches all
        if node.op_type in _FOLLOW:
            graph.retype_follower(node)
    graph.write(own)
    del own.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(own, data_prop=True)


def _halves() -> tuple[int, int]:
    from onnx import TensorProto

    return TensorProto.FLOAT16, TensorProto.BFLOAT16


def _to(node: onnx.NodeProto) -> int:
    return int(next((a.i for a in node.attribute if a.name == "to"), 0))


@dataclass(slots=True)
class _Graph:
    """Nodes in execution order, with who makes and who reads each tensor; both follow every change."""

    nodes: list[onnx.NodeProto]
    makers: dict[str, onnx.NodeProto]
    readers: dict[str, list[onnx.NodeProto]]
    held: dict[str, onnx.TensorProto]
    outputs: frozenset[str]
    typed: dict[str, int] = field(default_factory=dict)
    """What was given a 16-bit type here."""
    wanted: dict[str, int] = field(default_factory=dict)
    """Tensors that all who read them round to one 16-bit type, and which."""

    @classmethod
    def of(cls, model: onnx.ModelProto) -> _Graph:
        nodes = list(model.graph.node)
        held = {tensor.name: tensor for tensor in model.graph.initializer}
        found = cls(nodes, {}, {}, held, frozenset(value.name for value in model.graph.output))
        found._index()
        return found

    def _index(self) -> None:
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.readers = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def half(self, name: str) -> tuple[str, int] | None:
        """The 16-bit tensor that `name` is in float32, and its type."""
        cast = self.makers.get(name)
        if cast is None or cast.op_type != "Cast":
            return None
        kind = self.kind(cast.input[0])
        return (str(cast.input[0]), kind) if kind in _halves() else None

    def kind(self, name: str) -> int:
        """Element type of a tensor that a Cast makes, a typed node makes, or that is held; 0 for others."""
        if name in self.held:
            return int(self.held[name].data_type)
        maker = self.makers.get(name)
        if maker is not None and maker.op_type == "Cast":
            return _to(maker)
        return self.typed.get(name, 0)

    def wishes(self) -> Iterator[tuple[str, int]]:
        """Tensors that all readers round to one type, and which: at once, or behind what moves or clips them."""
        found: dict[str, int] = {}
        for node in reversed(self.nodes):
            for name in node.output:
                kinds = {self._wish(reader, name, found) for reader in self.readers.get(name, [])}
                kind = next(iter(kinds)) if len(kinds) == 1 and name not in self.outputs else 0
                if kind:
                    found[name] = kind
                    yield name, kind

    def _wish(self, reader: onnx.NodeProto, name: str, found: Mapping[str, int]) -> int:
        """The 16-bit type to which `reader` rounds what it reads; 0 where it does not."""
        if reader.op_type == "Cast":
            return _to(reader) if _to(reader) in _halves() else 0
        if reader.op_type not in _MONOTONE or any(reader.input[index] == name for index in _other(reader)):
            return 0
        kinds = {found.get(output, 0) for output in reader.output if output}
        return kinds.pop() if len(kinds) == 1 else 0

    def retype_layer(self, node: onnx.NodeProto) -> None:
        """`node` in the type that what it reads and its weight were rounded to; what it makes is cast back."""
        sides = [self.half(name) for name in node.input[:2]]
        if sides[0] is None or sides[1] is None or sides[0][1] != sides[1][1]:
            return
        kind = sides[0][1]
        biases = [self._constant(name, kind) for name in node.input[2:]]
        if None in biases:
            return
        self._retype(node, [sides[0][0], sides[1][0], *filter(None, biases)], kind)

    def retype_follower(self, node: onnx.NodeProto) -> None:
        """`node` in a 16-bit type where all numbers it reads have it, and all its readers want it."""
        numbers = _numbers(node)
        sides = [self.half(node.input[index]) for index in numbers]
        kinds = {side[1] for side in sides if side is not None}
        if len(kinds) != 1 or {self.wanted.get(name) for name in node.output if name} != kinds:
            return
        (kind,) = kinds
        inputs = list(node.input)
        for index, side in zip(numbers, sides, strict=True):
            found = side[0] if side is not None else self._constant(inputs[index], kind)
            if found is None:
                return
            inputs[index] = found
        self._retype(node, inputs, kind)

    def _constant(self, name: str, kind: int) -> str | None:
        """A constant's name in the type `kind`; None where it is none, or is no float32."""
        import onnx
        from onnx import helper, numpy_helper

        if not name:
            return ""
        tensor = self.held.get(name)
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT:
            return None
        other = self._name(name, kind)
        if other not in self.held:
            numbers = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(kind))
            self.held[other] = numpy_helper.from_array(numbers, other)
        return other

    def _retype(self, node: onnx.NodeProto, inputs: list[str], kind: int) -> None:
        """`node` on `inputs` of that type. Who rounds its result to it reads that itself; for all others it is cast."""
        import onnx
        from onnx import helper

        place = next(index for index, own in enumerate(self.nodes) if own is node) + 1
        del node.input[:]
        node.input.extend(inputs)
        for position, name in enumerate(list(node.output)):
            if not name:
                continue
            made = self._name(name, kind)
            self.typed[made] = kind
            node.output[position] = made
            for reader in self.readers.get(name, []):
                if reader.op_type == "Cast" and _to(reader) == kind:
                    self._replace(reader.output[0], made)
            cast = helper.make_node("Cast", [made], [name], name=f"{name}.float", to=onnx.TensorProto.FLOAT)
            self.nodes.insert(place, cast)
            place += 1
        self._index()

    def _name(self, name: str, kind: int) -> str:
        """One for what `name` is in the type `kind`, which nothing else has."""
        import onnx

        found = f"{name}.{onnx.TensorProto.DataType.Name(kind).lower()}"
        while found in self.makers or (found in self.held and self.held[found].data_type != kind):
            found += "_"
        return found

    def _replace(self, old: str, new: str) -> None:
        for reader in self.readers.get(old, []):
            names = [new if name == old else name for name in reader.input]
            del reader.input[:]
            reader.input.extend(names)

    def write(self, model: onnx.ModelProto) -> None:
        """The nodes and constants that anything hangs on, into `model`."""
        needed, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if any(name in needed for name in node.output):
                needed.update(node.input)
                kept.append(node)
        held = [tensor for name, tensor in self.held.items() if name in needed]
        nodes = [type(node).FromString(node.SerializeToString()) for node in reversed(kept)]
        del model.graph.node[:], model.graph.initializer[:]
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(held)


def _other(node: onnx.NodeProto) -> tuple[int, ...]:
    """Places of the inputs that are no numbers."""
    return tuple(index for index in range(len(node.input)) if index not in _numbers(node))


def _numbers(node: onnx.NodeProto) -> tuple[int, ...]:
    """Places of the inputs that are numbers, not shapes or indices."""
    if node.op_type == "Pad":
        return tuple(index for index in _PADDED if index < len(node.input) and node.input[index])
    if node.op_type in _SHAPED or node.op_type in _FIRST:
        return _SHAPED.get(node.op_type, (0,))
    return tuple(index for index, name in enumerate(node.input) if name)
