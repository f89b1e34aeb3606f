"""The nodes of a novel convolution as one node `convkit::NAME` with a body in standard operators.

A body is a model-local function, which ONNX Runtime puts in the node's place. Nodes say what they are part of in
their metadata.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

from convkit.compress import membership
from convkit.compress.membership import DOMAIN
from convkit.export import artifact

_INSIDE = 16
"""Whole numbers up to so many, such as axes and shapes, are constants of the body; other ones are its inputs."""
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True, slots=True)
class _Call:
    """Nodes of one novel convolution, what they read from elsewhere and what is read of them elsewhere."""

    op: str
    place: str
    nodes: Sequence[onnx.NodeProto]
    reads: Sequence[str]
    makes: Sequence[str]


def with_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, edited: each run of nodes that one novel convolution is made of is a call of a function.

    What is one node is an ordinary operator already; what was quantized is left open, for engines fuse across its
    borders.
    """
    bodies: dict[tuple[str, bytes], onnx.FunctionProto] = {}
    written: list[onnx.NodeProto] = []
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for call in list(_calls(model)):
        if isinstance(call, onnx.NodeProto):
            written.append(call)
            continue
        inside = [name for name in call.reads if _is_small(constants.get(name))]
        outside = [name for name in call.reads if name not in inside]
        body = _body(call, outside, [constants[name] for name in inside], model.opset_import)
        function = bodies.setdefault((call.op, body.SerializeToString(deterministic=True)), body)
        if not function.name:
            known = sum(titled(op) == titled(call.op) for op, _ in bodies)
            function.name = titled(call.op) + ("" if known == 1 else f"_{known}")
        written.append(helper.make_node(function.name, outside, call.makes, call.place, domain=DOMAIN))
    if bodies:
        del model.graph.node[:]
        model.graph.node.extend(written)
        model.functions.extend(bodies.values())
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
        artifact.drop_unread(model)
    return model


def _calls(model: onnx.ModelProto) -> Iterator[onnx.NodeProto | _Call]:
    """The graph's nodes in order, runs of those that belong together as one."""
    leaving = {output.name for output in model.graph.output}
    nodes = list(model.graph.node)
    readers: dict[str, set[str]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, set()).add(membership.tag(node))
    runs = [(tag, list(run)) for tag, run in itertools.groupby(nodes, membership.tag)]
    often = {own for own, _ in runs if own and sum(own == other for other, _ in runs) > 1}
    for tag, run in runs:
        if not tag or tag in often or len(run) == 1 or any(node.op_type in _QUANTIZED for node in run):
            yield from run
            continue
        made = {name for node in run for name in node.output}
        reads = dict.fromkeys(name for node in run for name in node.input if name and name not in made)
        makes = [n for node in run for n in node.output if n and (n in leaving or readers.get(n, set()) - {tag})]
        op, _, place = tag.partition(":")
        yield _Call(op, place, run, list(reads), makes)


def _is_small(tensor: onnx.TensorProto | None) -> bool:
    if tensor is None or tensor.data_type != onnx.TensorProto.INT64:
        return False
    return len(tensor.raw_data) <= _INSIDE * 8


def _body(
    call: _Call,
    outside: Sequence[str],
    inside: Sequence[onnx.TensorProto],
    opsets: Iterable[onnx.OperatorSetIdProto],
) -> onnx.FunctionProto:
    """The function without its name; tensors are called by their turn, and nodes by their names in the layer, so that
    like layers share one."""
    names = {name: f"x{turn}" for turn, name in enumerate(outside)}
    names |= {tensor.name: f"c{turn}" for turn, tensor in enumerate(inside)}
    made = [name for node in call.nodes for name in node.output if name]
    names |= {name: f"y{turn}" for turn, name in enumerate(made)}
    nodes = [_constant(tensor, names[tensor.name]) for tensor in inside]
    for node in call.nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = node.name.removeprefix(f"{call.place}.")
        del copy.input[:], copy.output[:]
        membership.retold(copy, f"{call.op}:")
        copy.input.extend(names.get(name, "") for name in node.input)
        copy.output.extend(names.get(name, "") for name in node.output)
        nodes.append(copy)
    inputs, outputs = ([names[name] for name in each] for each in (outside, call.makes))
    used = [opset for opset in opsets if opset.domain == ""]
    return helper.make_function(DOMAIN, "", inputs, outputs, nodes, used)


def _constant(tensor: onnx.TensorProto, name: str) -> onnx.NodeProto:
    value = onnx.TensorProto()
    value.CopyFrom(tensor)
    value.name = name
    return helper.make_node("Constant", [], [name], name, value=value)


def titled(op: str) -> str:
    """`inception_dw` as InceptionDw."""
    return "".join(word.capitalize() for word in op.split("_"))
