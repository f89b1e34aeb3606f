"""Patches: a layer with weights as one matrix product, at some of its output positions.

Row n of `inputs` holds the numbers that an output position multiplies with the rows of its weight, row n of `outputs`
what it makes of them, so that outputs[g] = inputs[g] @ weight[g].T + bias for each group g of channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from convkit.compress import graph as graphs
from convkit.compress import weights

_LINEAR = ("Gemm", "MatMul")


@dataclass(frozen=True, slots=True)
class Patches:
    """inputs [groups, positions, k] and outputs [groups, positions, m], float32."""

    inputs: Tensor
    outputs: Tensor


def of(node: fx.Node, x: Tensor, y: Tensor, most: int, generator: torch.Generator) -> Patches:
    """At most `most` positions, drawn from `generator`, of every sample of `node`, which reads `x` and made `y`."""
    if graphs.operator(node) in _LINEAR:
        return _linear(x, y, most, generator)
    places = _drawn(math.prod(y.shape[2:]), most, generator)
    index = _index(node, x.shape[2:], y.shape[2:], places)
    read = x.flatten(2)
    if bool((index == read.shape[2]).any()):
        read = torch.cat([read, x.new_zeros(*x.shape[:2], 1)], 2)
    taken = read[:, :, index.flatten()].reshape(len(x), groups(node), -1, *index.shape)
    inputs = taken.permute(1, 0, 3, 2, 4).reshape(groups(node), len(x) * len(places), -1)
    made = y.flatten(2)[:, :, places].reshape(len(y), groups(node), -1, len(places))
    return Patches(inputs, made.permute(1, 0, 3, 2).reshape(groups(node), len(y) * len(places), -1))


def joined(parts: Sequence[Patches]) -> Patches:
    """The positions of all `parts`."""
    return Patches(torch.cat([part.inputs for part in parts], 1), torch.cat([part.outputs for part in parts], 1))


def of_samples(patches: Patches, which: Tensor) -> Patches:
    """The positions of some of the samples, by a mask of them all."""
    chosen = which.repeat_interleave(patches.inputs.shape[1] // len(which))
    return Patches(patches.inputs[:, chosen], patches.outputs[:, chosen])


def rows(node: fx.Node, weight: Tensor) -> Tensor:
    """The weight of `node` as it stands in the graph, as [groups, m, k]: rows that `Patches.inputs` multiply."""
    first = outputs_first(node, weight).flatten(1)
    return first.reshape(groups(node), len(first) // groups(node), -1)


def groups(node: fx.Node) -> int:
    """Groups of channels of the layer `node`."""
    return int(_geometry(node).get("group", 1))


def _geometry(node: fx.Node) -> Mapping[str, Any]:
    """Attributes of a layer as ONNX has them."""
    layer = graphs.module(node)
    return weights.geometry(layer) if isinstance(layer, nn.modules.conv._ConvNd) else node.kwargs  # noqa: SLF001


def laid_out(node: fx.Node, rows: Tensor, weight: Tensor) -> Tensor:
    """The reverse of `rows`: in the shape of `weight`."""
    return outputs_first(node, rows.reshape(outputs_first(node, weight).shape))


def across_inputs(node: fx.Node, row: Tensor) -> Tensor:
    """`row` [inputs] such that it broadcasts over the weight of the layer `node`, which reads all of them."""
    rank = 2 if graphs.operator(node) in _LINEAR else 2 + len(_geometry(node)["kernel_shape"])
    return outputs_first(node, row.reshape(1, -1, *[1] * (rank - 2)))


def outputs_first(node: fx.Node, weight: Tensor) -> Tensor:
    """`weight` with its outputs on axis 0, and back."""
    operator = graphs.operator(node)
    second = operator in ("MatMul", "ConvTranspose") or (operator == "Gemm" and not node.kwargs.get("transB", 0))
    return weight.transpose(0, 1) if second else weight


def _linear(x: Tensor, y: Tensor, most: int, generator: torch.Generator) -> Patches:
    """Every position but the last axis counts; a Gemm has one a sample."""
    inputs, outputs = (t.reshape(len(t), -1, t.shape[-1]) for t in (x, y))
    places = _drawn(inputs.shape[1], most, generator)
    return Patches(inputs[:, places].flatten(0, 1)[None], outputs[:, places].flatten(0, 1)[None])


def _drawn(count: int, most: int, generator: torch.Generator) -> Tensor:
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=generator)[:most].sort().values


def _index(node: fx.Node, source: Sequence[int], result: Sequence[int], places: Tensor) -> Tensor:
    """[places, kernel]: where in the flattened `source` each of the kernel's weights reads; its size is padding."""
    index = torch.zeros(len(places), 1, dtype=torch.long)
    outside = torch.zeros(len(places), 1, dtype=torch.bool)
    for axis, place in enumerate(torch.unravel_index(places, tuple(result))):
        read = _reads(node, axis, place)
        beyond = (read < 0) | (read >= source[axis])
        index = (index[:, :, None] * source[axis] + read.clamp(0, source[axis] - 1)[:, None]).flatten(1)
        outside = (outside[:, :, None] | beyond[:, None]).flatten(1)
    return torch.where(outside, math.prod(source), index)


def _reads(node: fx.Node, axis: int, place: Tensor) -> Tensor:
    """[places, kernel along `axis`]: coordinates in the source, -1 where a transposed kernel finds no point."""
    kernel, stride, pad, dilation = (
        int(_geometry(node)[name][axis]) for name in ("kernel_shape", "strides", "pads", "dilations")
    )
    offset = torch.arange(kernel)[None] * dilation
    if graphs.operator(node) == "Conv":
        return place[:, None] * stride + offset - pad
    spread = place[:, None] + pad - offset
    return torch.where(spread % stride == 0, spread.div(stride, rounding_mode="floor"), -1)
