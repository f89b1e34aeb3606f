"""The float precision of an engine, simulated: what it computes in float is stored in fewer bits, as a setting of the
whole network and not of a layer; no file says so.

OpenVINO's inference precision (Graph::EnforceInferencePrecision in its CPU plugin): tensors between float operators and
float weights are in that type, sums and biases in float32. An activation inside a kernel still has the whole sum, and
so has the quantization that follows one. Kernels that read integer codes stay as they are; where their result is
float, it is in that type. What is computed of sizes, and not of numbers, stays exact.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx, nn

from convkit.compress import format as formats
from convkit.compress import graph as graphs
from convkit.compress import pairs, placement
from convkit.compress.format import Format
from convkit.compress.model import Model, clone
from convkit.compress.target import Target

_DEQUANTIZE = "DequantizeLinear"
_NOT_FLOAT = ("QuantizeLinear", "Shape", "Size")
"""Operators that do not compute in float with what they read."""


def in_precision(model: Model, target: Target, name: str) -> Model:
    """The simulated `model` as the engine of `target` runs it with its float layers in the format `name`.

    What is exact (fp32) leaves the model as it is; the model given is never changed.
    """
    number = formats.load(name)
    if number.exact:
        return model
    graph = clone(model.graph)
    data = _data(graph)
    for layer in {id(m): m for m in map(graphs.module, graphs.computes(graph)) if m is not None}.values():
        _round_weight(layer, number)
    for node in [n for n in graph.graph.nodes if n in data and _is_float(n)]:
        if placement.kernel_output(node, target) is node and not _is_folded(node):
            _round(graph, node, number)
    graph.recompile()
    return model.replace(graph=graph)


def _data(graph: fx.GraphModule) -> set[fx.Node]:
    """Nodes that compute with the numbers of the network's inputs, or with stored codes; not with sizes alone."""
    found: set[fx.Node] = set()
    for node in graph.graph.nodes:
        starts = node.op == "placeholder" or graphs.operator(node) == _DEQUANTIZE
        if starts or (graphs.operator(node) not in _NOT_FLOAT and not found.isdisjoint(node.all_input_nodes)):
            found.add(node)
    return found


def _is_folded(node: fx.Node) -> bool:
    """Whether the engine folds the batch norm behind a layer into it."""
    user = graphs.sole_user(node)
    return user is not None and node.op == "call_module" and graphs.operator(user) == "BatchNormalization"


def _is_float(node: fx.Node) -> bool:
    """Whether `node` makes a float tensor: one of the network's own, or numbers of codes."""
    return graphs.is_float(node) or graphs.operator(node) == _DEQUANTIZE


def _round_weight(layer: nn.Module, number: Format) -> None:
    weight = getattr(layer, "weight", None)
    if isinstance(weight, torch.Tensor) and not isinstance(layer, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - torch's only common class
        one = torch.ones(())
        with torch.no_grad():
            weight.copy_(number.fake(weight, one, torch.zeros(())))


def _round(graph: fx.GraphModule, node: fx.Node, number: Format) -> None:
    """Give every reader of `node` that computes in float its numbers rounded."""
    readers = list(_in_float(node))
    if readers:
        codes = pairs.Codes.covering(number, 0.0, 0.0, by_engine=True)
        pairs.redirect(node, readers, pairs.insert(graph, node, f"{graphs.value(node)}_rounded", codes))


def _in_float(node: fx.Node) -> Iterator[fx.Node]:
    is_codes = graphs.operator(node) == _DEQUANTIZE
    for reader in node.users:
        if graphs.operator(reader) not in _NOT_FLOAT and not (is_codes and _reads_codes(reader)):
            yield reader


def _reads_codes(reader: fx.Node) -> bool:
    """Whether a kernel takes the codes of all that it reads, as it does where nothing of it is float."""
    if reader.op != "call_function" or not graphs.operator(reader):
        return False
    return all(graphs.operator(source) == _DEQUANTIZE for source in reader.all_input_nodes if source.op != "get_attr")
