"""The Analysis: what each layer of a Model holds, computes and moves, on the sample shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import fx

from convkit.compress import graph as graphs
from convkit.compress import macs, operand
from convkit.compress.method import Samples
from convkit.compress.model import Model, TensorSpec, with_shapes
from convkit.compress.operand import Operand

SCHEMA_VERSION = 1
_KINDS = {
    "linear": "Gemm MatMul MatMulInteger Einsum",
    "transposed conv": "ConvTranspose",
    "recurrent": "LSTM GRU RNN",
    "norm": "BatchNormalization InstanceNormalization GroupNormalization LayerNormalization RMSNormalization LRN "
    "LpNormalization MeanVarianceNormalization",
    "pooling": "MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool",
    "activation": "Relu LeakyRelu PRelu Elu Selu Celu ThresholdedRelu Shrink Sigmoid HardSigmoid HardSwish Tanh "
    "Softplus Softsign Gelu Mish Swish Clip Softmax LogSoftmax Hardmax",
    "resize": "Resize GridSample DepthToSpace SpaceToDepth",
    "quantization": "QuantizeLinear DequantizeLinear",
    "reduction": "ReduceSum ReduceMean ReduceProd ReduceMax ReduceMin ReduceL1 ReduceL2 ReduceSumSquare "
    "ReduceLogSum ReduceLogSumExp ArgMax ArgMin TopK",
    "layout": "Identity Shape Size Reshape Flatten Transpose Squeeze Unsqueeze Expand Tile Concat Split Pad Slice "
    "Gather GatherElements GatherND ScatterElements ScatterND Cast CastLike",
}
_KIND = {operator: kind for kind, operators in _KINDS.items() for operator in operators.split()}
_VIEWS = frozenset({"Identity", "Shape", "Size", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})
"""Name the same memory anew, or only its sizes: nothing is moved."""
_PICKS = frozenset({"Slice", "Gather", "GatherElements", "GatherND"})
"""Read no more of their first input than they write."""
_SUMMED = ("parameters", "macs", "activations", "bytes")


@dataclass(frozen=True, slots=True)
class LayerAnalysis:
    """One layer or operator. Shapes are those of the sample inputs; `inputs` are its activations without constants.

    `parameters` counts a parameter at the first layer that reads it. `bytes` are read and written: activations and
    weights in the types they are stored in, a tensor between QuantizeLinear and DequantizeLinear as its codes.
    """

    name: str
    kind: str
    operator: str
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    parameters: int
    macs: int
    activations: int
    """Elements of the output."""
    bytes: int
    part_of: str = ""
    """The novel convolution that it is part of, and which: `NAME:PLACE`."""

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return intensity(self.macs, self.bytes)


@dataclass(frozen=True, slots=True)
class Analysis:
    """All layers in execution order, and the digest of the model they are of."""

    model: str
    name: str
    inputs: tuple[TensorSpec, ...]
    layers: tuple[LayerAnalysis, ...]

    def total(self, layers: Iterable[LayerAnalysis] | None = None) -> dict[str, float]:
        """Sums over `layers` (all of them by default), and the intensity of their sum."""
        chosen = self.layers if layers is None else tuple(layers)
        sums = {key: sum(getattr(layer, key) for layer in chosen) for key in _SUMMED}
        return {"layers": len(chosen), **sums, "intensity": intensity(sums["macs"], sums["bytes"])}

    def kinds(self) -> dict[str, dict[str, float]]:
        """Totals per kind, the most MACs first."""
        found = {kind: self.total(layer for layer in self.layers if layer.kind == kind) for kind in self._kinds()}
        return dict(sorted(found.items(), key=lambda item: (-item[1]["macs"], -item[1]["bytes"], item[0])))

    def novel(self) -> dict[str, dict[str, float]]:
        """Totals per novel convolution of the network, in its order."""
        places = dict.fromkeys(layer.part_of for layer in self.layers if layer.part_of)
        return {place: self.total(layer for layer in self.layers if layer.part_of == place) for place in places}

    def _kinds(self) -> set[str]:
        return {layer.kind for layer in self.layers}

    def as_dict(self, layers: Iterable[LayerAnalysis] | None = None) -> dict[str, Any]:
        """JSON of it, with `layers` (all of them by default) and the totals of all."""
        chosen = self.layers if layers is None else layers
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "name": self.name,
            "inputs": {spec.name: {"shape": spec.shape, "sample": spec.sample} for spec in self.inputs},
            "total": self.total(),
            "kinds": self.kinds(),
            "novel": self.novel(),
            "layers": [{**dataclasses.asdict(layer), "intensity": layer.intensity} for layer in chosen],
        }


def intensity(multiply_accumulates: float, moved: float) -> float:
    """Operations per byte, 2·MACs / bytes (Lavin, On the Efficiency of CNNs); 0 where nothing is moved."""
    return 2 * multiply_accumulates / moved if moved else 0.0


def analyse(model: Model, samples: Samples | None = None) -> Analysis:
    """Run `model` once, on its sample shapes unless given `samples`, and describe every layer and operator."""
    with_shapes(model, samples)
    seen: set[int] = set()
    nodes = (node for node in graphs.computes(model.graph) if not operand.is_constant(node))
    return Analysis(model.digest, model.name, model.inputs, tuple(_layer(node, seen) for node in nodes))


def _layer(node: fx.Node, seen: set[int]) -> LayerAnalysis:
    operator = graphs.operator(node)
    operands, results = operand.operands(node), operand.results(node)
    shapes = [found.shape for found in operands]
    output = results[0].shape if results else ()
    return LayerAnalysis(
        name=graphs.key(node),
        kind=_kind(node, operator, shapes),
        operator=operator,
        inputs=tuple(found.shape for found in operands if found.present and found.constant is None),
        output=output,
        parameters=_parameters(operands, seen),
        macs=macs.count(operator, shapes, output, node.kwargs),
        activations=sum(result.elements for result in results),
        bytes=_bytes(node, operator, operands, results),
        part_of=node.meta.get("op", ""),
    )


def _kind(node: fx.Node, operator: str, shapes: macs.Shapes) -> str:
    if operator in {"Conv", "ConvInteger"}:
        return _conv_kind(shapes[0], shapes[1])
    return _KIND.get(operator, "elementwise" if node.op == "call_function" else "other")


def _conv_kind(x: macs.Shape, weight: macs.Shape) -> str:
    """x [N, C, …], weight [M, C/groups, …]."""
    groups = x[1] // weight[1]
    if groups > 1:
        return "depthwise conv" if groups == x[1] else "grouped conv"
    return "pointwise conv" if set(weight[2:]) == {1} else "conv"


def _parameters(operands: list[Operand], seen: set[int]) -> int:
    """Elements of the trained constants that no earlier layer has read."""
    new = [found for found in operands if found.trained and id(found.constant) not in seen]
    seen.update(id(found.constant) for found in new)
    return sum(found.elements for found in new)


def _bytes(node: fx.Node, operator: str, operands: list[Operand], results: list[Operand]) -> int:
    if operator in _VIEWS or operand.fused(node):
        return 0
    written = sum(result.bytes for result in results)
    read = [found.bytes for found in operands]
    if operator in _PICKS:
        read[0] = min(read[0], written)
    return written + sum(read)
