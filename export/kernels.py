"""Nodes that a kernel computes as one: each becomes `convkit::NAME`, a plugin's node with a body in standard operators.

The body is the nodes themselves, so that the file still runs where there is no plugin. Nothing is taken on trust: what
the kernel is said to compute must be what the nodes compute, on numbers drawn by a seed, else they stay.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from convkit.compress import membership, parts
from convkit.compress.errors import ConvkitError
from convkit.compress.membership import DOMAIN
from convkit.export import artifact
from convkit.export import kernel as kernels
from convkit.export.functions import titled
from convkit.export.kernel import Case, Kernel
from convkit.export.pattern import Network, attributes

CALL, NAMESPACE, VERSION = "call", "plugin_namespace", "plugin_version"
"""Attributes of a kernel's node: its own as JSON, and what makes the parser ask for a plugin."""
ALL = "all"
_SEED, _FREE = 0, (2, 24)
"""Where the two are compared, a free batch and other free sizes are so large."""
_CLOSE = 1e-5
"""Of the largest number made: so far may two orders of the same sums in float32 lie apart."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Nodes that a kernel stands for, the last one first, and its operands: tensors of the file by name, or numbers."""

    nodes: Sequence[onnx.NodeProto]
    operands: Sequence[str | np.ndarray]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    """Types of the numbers that have not that of the first operand, by the kernel's names."""

    @property
    def made(self) -> str:
        return str(self.nodes[0].output[0])


Finder = Callable[[Network, onnx.NodeProto], Taken | None]
"""What a kernel takes that ends in a node: the PART of `export/ops/NAME/onnx.py`."""


def used(model: onnx.ModelProto) -> tuple[str, ...]:
    """Kernels that the file's nodes ask for."""
    known = {titled(name): name for name in kernels.names()}
    return tuple(sorted({known[node.op_type] for node in model.graph.node if is_kernels(node)}))


def is_kernels(node: onnx.NodeProto) -> bool:
    """Whether a kernel of convkit's computes it."""
    if node.domain != DOMAIN or NAMESPACE not in attributes(node):
        return False
    return node.op_type in {titled(name) for name in kernels.names()}


def with_kernels(model: onnx.ModelProto, asked: Sequence[str]) -> dict[str, str]:
    """Edit `model`: what the kernels that are `asked` for take is a node each; ALL are those that find anything. Names
    of these nodes, each with its kernel's.

    Raises as `kernel.load` does, and ConvkitError where a kernel finds nothing.
    """
    found: dict[str, str] = {}
    for name in kernels.names() if ALL in asked else dict.fromkeys(asked):
        own = [_put(model, name, taken) for taken in _taken(model, name)]
        if not own and ALL not in asked:
            raise _nothing(f"kernel {name} finds nothing in this network that it computes")
        found |= dict.fromkeys(own, name)
    if not found:
        raise _nothing("no kernel finds anything in this network that it computes")
    return dict(sorted(found.items()))


def _nothing(words: str) -> ConvkitError:
    return ConvkitError(words, hint="leave out --kernel; `convkit list kernels` says what each is for")


def _taken(model: onnx.ModelProto, name: str) -> list[Taken]:
    """What a kernel takes, no node twice."""
    kernel, find = kernels.load(name), parts.load(kernels.FOLDER, name, "onnx")
    network, gone, found = Network(model), set[str](), list[Taken]()
    for node in reversed(network.nodes):
        taken: Taken | None = None if gone.issuperset(node.output) else find(network, node)
        if taken is None or not _is_closed(network, taken, gone):
            continue
        if _fits(network, kernel, taken) and _agrees(model, network, kernel, taken):
            gone |= {output for each in taken.nodes for output in each.output}
            found.append(taken)
    return found


def _is_closed(network: Network, taken: Taken, gone: set[str]) -> bool:
    """Nobody else reads what lies within, no kernel has a part of it, and all that is read is an operand."""
    inside = {output for node in taken.nodes for output in node.output if output}
    read = [name for node in taken.nodes for name in node.input if name]
    whole = all(name == taken.made or network.readers(name) == read.count(name) for name in inside)
    outside = {name for name in read if name not in inside and not network.is_constant(name)}
    return whole and not inside & gone and outside == {name for name in taken.operands if isinstance(name, str)}


def _fits(network: Network, kernel: Kernel, taken: Taken) -> bool:
    """Whether the kernel has these types."""
    first = network.dtype(str(taken.operands[0]))
    own = all(taken.kinds.get(tensor, first) in kernel.kinds(tensor, first) for tensor in kernel.tensors)
    return own and first in kernel.types and network.dtype(taken.made) == first


def _agrees(model: onnx.ModelProto, network: Network, kernel: Kernel, taken: Taken) -> bool:
    """Whether what the kernel is said to compute is what ONNX Runtime makes of the nodes, both in float32."""
    import onnxruntime
    import torch

    draw = np.random.default_rng(_SEED)
    names = [operand for operand in taken.operands if isinstance(operand, str)]
    shapes = {name: [size or _FREE[axis > 0] for axis, size in enumerate(network.shape(name))] for name in names}
    drawn = {name: draw.normal(0.3, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    operands = [drawn[one] if isinstance(one, str) else one for one in taken.operands]
    tensors = {name: torch.from_numpy(np.array(one)) for name, one in zip(kernel.tensors, operands, strict=True)}
    alone = _alone(model, network, taken, drawn).SerializeToString()
    try:
        (wanted,) = onnxruntime.InferenceSession(alone).run(None, drawn)
    except Exception:  # noqa: BLE001 - of shapes like these there is no such call; the engine's errors have no class
        return False
    try:
        made = kernel.plain(Case(tensors, taken.attributes))().numpy()
    except (RuntimeError, ValueError, IndexError):
        return False
    return made.shape == wanted.shape and bool(np.abs(made - wanted).max() <= _CLOSE * np.abs(wanted).max())


def _alone(model: onnx.ModelProto, network: Network, taken: Taken, drawn: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The nodes as a network of their own, whose numbers are float32."""
    inputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape) for name, array in drawn.items()]
    output = helper.make_tensor_value_info(taken.made, onnx.TensorProto.FLOAT, None)
    held = {name: array for name in _constants(network, taken) if (array := network.constant(name)) is not None}
    tensors = [numpy_helper.from_array(array, name) for name, array in held.items()]
    nodes = [_uncast(node) for node in _in_order(taken.nodes)]
    graph = helper.make_graph(nodes, "taken", inputs, [output], tensors)
    opsets = [opset for opset in model.opset_import if opset.domain == ""]
    return helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)


def _uncast(node: onnx.NodeProto) -> onnx.NodeProto:
    """Types are another matter: what is rounded in between differs."""
    return helper.make_node("Identity", node.input, node.output) if node.op_type == "Cast" else node


def _constants(network: Network, taken: Taken) -> list[str]:
    """Names of those that the nodes read."""
    read = dict.fromkeys(name for node in taken.nodes for name in node.input)
    return [name for name in read if network.is_constant(name)]


def _in_order(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Each behind what makes its inputs."""
    left, ordered = list(nodes), list[onnx.NodeProto]()
    while left:
        waiting = {name for node in left for name in node.output}
        ready = [node for node in left if waiting.isdisjoint(node.input)]
        ordered += ready
        left = [node for node in left if node not in ready]
    return ordered


def _put(model: onnx.ModelProto, name: str, taken: Taken) -> str:
    """Put a node of the kernel in the place of the nodes; what it is called."""
    network, last = Network(model), taken.nodes[0]
    kernel, kind = kernels.load(name), network.dtype(str(taken.operands[0]))
    called, inputs = last.name or taken.made, list[str]()
    for tensor, operand in zip(kernel.tensors, taken.operands, strict=True):
        inputs.append(operand if isinstance(operand, str) else f"{called}.{name}.{tensor}")
        if not isinstance(operand, str):
            model.graph.initializer.append(_initializer(inputs[-1], operand, taken.kinds.get(tensor, kind)))
    body = _body(model, network, taken, titled(name), inputs)
    told = {CALL: json.dumps(dict(taken.attributes)), NAMESPACE: DOMAIN, VERSION: "1"}
    node = helper.make_node(body.name, inputs, [taken.made], called, domain=DOMAIN, overload=body.overload, **told)
    membership.write(node, membership.metadata(membership.meta(last)))
    place = next(place for place, each in enumerate(model.graph.node) if taken.made in each.output)
    model.graph.node.insert(place, node)
    for each in taken.nodes:
        model.graph.node.remove(each)
    model.functions.append(body)
    _tidy(model)
    return called


def _initializer(name: str, array: np.ndarray, kind: str) -> onnx.TensorProto:
    import ml_dtypes

    dtype = ml_dtypes.bfloat16 if kind == "bfloat16" else np.dtype(kind)
    return numpy_helper.from_array(np.ascontiguousarray(array.astype(dtype)), name)


def _body(
    model: onnx.ModelProto, network: Network, taken: Taken, title: str, inputs: Sequence[str]
) -> onnx.FunctionProto:
    """The nodes as a function of the node's inputs; kernels' functions of one name are told apart by `overload`."""
    held = {name: f"c{turn}" for turn, name in enumerate(_constants(network, taken))}
    names = held | {name: f"x{inputs.index(name)}" for name in inputs}
    nodes = [
        helper.make_node("Constant", [], [short], short, value=network.tensor(name)) for name, short in held.items()
    ]
    ordered = _in_order(taken.nodes)
    names |= {name: f"y{turn}" for turn, name in enumerate(name for node in ordered for name in node.output if name)}
    for node in ordered:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.input[:], copy.output[:], copy.metadata_props[:]
        copy.input.extend(names.get(name, "") for name in node.input)
        copy.output.extend(names.get(name, "") for name in node.output)
        nodes.append(copy)
    opsets = [opset for opset in model.opset_import if opset.domain == ""]
    arguments = [f"x{turn}" for turn in range(len(inputs))]
    body = helper.make_function(
        DOMAIN, title, arguments, [names[taken.made]], nodes, opsets, attributes=[CALL, NAMESPACE, VERSION]
    )
    body.overload = str(sum(function.name == title for function in model.functions))
    return body


_OVERLOADS = 10
"""The first version of the format in which functions of one name may be told apart."""


def _tidy(model: onnx.ModelProto) -> None:
    """Drop what nobody reads any more, and say what is used."""
    artifact.drop_unread(model)
    model.ir_version = max(model.ir_version, _OVERLOADS)
    if all(opset.domain != DOMAIN for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
