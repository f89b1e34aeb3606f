"""Probes: the inner tensors at which two networks can be compared, and the run that reads them.

Quantized networks are compared by the integer codes behind every QuantizeLinear, float ones by every tensor whose name
both have, a float one with a quantized one by what the codes stand for. No probe stands inside what an engine fuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import fx

from convkit.compress import arrays, simulate
from convkit.compress import graph as graphs

if TYPE_CHECKING:
    import numpy as np
    import torch

    from convkit.compress.model import Model

CODES, FLOAT, DEQUANTIZED = "codes", "float", "dequantized"
_BETWEEN = ("QuantizeLinear", "DequantizeLinear", "Relu", "Clip", "Identity")
"""What stands between a layer and its codes."""
_SUMS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose sums in floats are rounded in an order that is each engine's own."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Tensor `name` of the reference is tensor `fetch` of the candidate; `layer` is the source layer that makes it."""

    name: str
    fetch: str
    layer: str
    kind: str
    dtype: str
    """torch's, of the candidate's tensor."""
    dequantize: fx.Node | None = None
    """The candidate's QuantizeLinear whose codes are turned back into numbers first."""

    def read(self, found: np.ndarray) -> np.ndarray:
        """The candidate's tensor in the reference's terms, as an engine gives it."""
        if self.dequantize is None:
            return arrays.read(found, self.dtype)
        from convkit.compress import ops

        made = arrays.tensor(found, self.dtype)
        parameters = [graphs.constant(argument) for argument in self.dequantize.args[1:3]]
        return arrays.array(ops.function("DequantizeLinear")(made, *parameters, **self.dequantize.kwargs))


def find(reference: Model, candidate: Model, path: str) -> list[Probe]:
    """Probes in the reference's execution order; `path` is the candidate's file, which has fewer tensors than its Model
    where one operator became several nodes.
    """
    stored = _stored(path)
    ours = _tensors(reference)
    theirs = {name: node for name, node in _tensors(candidate).items() if name in stored}
    if simulate.is_quantized(candidate):
        kind = CODES if simulate.is_quantized(reference) else DEQUANTIZED
        found = _of_codes(theirs) if kind == CODES else _of_numbers(theirs)
    else:
        kind, found = FLOAT, {name: (name, None) for name in theirs}
    pairs = ((name, node, *found[name]) for name, node in ours.items() if name in found)
    return [
        Probe(name, fetch, layer(node), kind, theirs[fetch].meta["tensor"].dtype, codes)
        for name, node, fetch, codes in pairs
    ]


def drifting(simulated: Model) -> frozenset[str]:
    """Tensors of a network in integers that depend on codes which a layer in float made: where its last bit differs a
    code may, and through what follows many do, though every layer computes what it is given.
    """
    summed: set[fx.Node] = set()
    found: set[fx.Node] = set()
    for node in simulated.graph.graph.nodes:
        read = node.all_input_nodes
        if graphs.operator(node) in _SUMS or not summed.isdisjoint(read):
            summed.add(node)
        if not found.isdisjoint(read) or (node in summed and graphs.operator(node) == "QuantizeLinear"):
            found.add(node)
    return frozenset(graphs.value(node) for node in found)


def layer(node: fx.Node) -> str:
    """The source layer whose result `node` holds, past quantization and activation; else the tensor's name."""
    found = node
    while graphs.operator(found) in _BETWEEN and isinstance(found.args[0], fx.Node):
        found = found.args[0]
    if found.op == "placeholder":
        return graphs.value(found)
    return str(found.target) if found.op == "call_module" else str(found.meta.get("layer") or graphs.value(found))


def run(
    model: Model,
    inputs: Mapping[str, np.ndarray],
    wanted: frozenset[str] = frozenset(),
    given: Mapping[str, np.ndarray] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(outputs, the inner tensors `wanted`) of one run; readers of a tensor that is in `given` get it from there."""
    import torch

    tensors = [torch.from_numpy(inputs[spec.name]) for spec in model.inputs]
    own: dict[str, np.ndarray] = {}
    with torch.no_grad():
        results = _recorder(model.graph, wanted, given or {}, own).run(*tensors)
    names = (spec.name for spec in model.outputs)
    return {name: arrays.array(result) for name, result in zip(names, results, strict=True)}, own


def _recorder(
    graph: fx.GraphModule, wanted: frozenset[str], given: Mapping[str, np.ndarray], own: dict[str, np.ndarray]
) -> fx.Interpreter:
    import torch

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - fx's own signature
            result: torch.Tensor = super().run_node(n)
            name = graphs.value(n)
            if n.op in ("placeholder", "output", "get_attr") or name not in wanted:
                return result
            own[name] = arrays.array(result)
            return torch.from_numpy(given[name]).to(result.dtype) if name in given else result

    return Recorder(graph)


def _stored(path: str) -> set[str]:
    import onnx

    nodes = onnx.load(path, load_external_data=False).graph.node
    return {name for node in nodes for name in node.output}


def _tensors(model: Model) -> dict[str, fx.Node]:
    """Nodes that make a tensor, by its name."""
    return {graphs.value(node): node for node in graphs.computes(model.graph)}


def _of_codes(tensors: Mapping[str, fx.Node]) -> dict[str, tuple[str, fx.Node | None]]:
    return {name: (name, None) for name, node in tensors.items() if graphs.operator(node) == "QuantizeLinear"}


def _of_numbers(tensors: Mapping[str, fx.Node]) -> dict[str, tuple[str, fx.Node | None]]:
    """Float tensor -> its codes; inputs are left out, as they are the same by definition."""
    found: dict[str, tuple[str, fx.Node | None]] = {}
    for name, node in tensors.items():
        if graphs.operator(node) == "QuantizeLinear" and isinstance(node.args[0], fx.Node):
            found[graphs.value(node.args[0])] = (name, node)
    return found
