"""What the filters of convolutions look like: how many do nothing, how alike they are, whether they look trained.

Gavrikov and Keuper, CNN Filter DB: An Empirical Investigation of Trained Convolutional Filters, CVPR 2022.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from convkit.compress import graph as graphs
from convkit.compress import weights

_NEAR = 100
"""A filter is nothing where all of it is smaller than the layer's largest weight by this factor."""
_SPARSE, _FEW = 0.1, 0.5
"""Share of filters that do nothing, and digits of entropy, from which and below which a layer is worth a look."""
_TAPS, _ENOUGH = 9, 16
"""Of the filters that the authors fitted the entropy of noise to, and how many have one at all."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Of a layer of `count` filters of `taps`: `sparse`, the share that does nothing; `entropy` of the variance along
    their principal directions, in digits, and that at which a layer looks like noise (`random`); `orthogonal`: 1 where
    no two outputs read alike, 0 where all do.
    """

    name: str
    count: int
    taps: int
    sparse: float
    entropy: float
    random: float
    orthogonal: float

    @property
    def hint(self) -> str:
        """What they say of the layer; "" where they say nothing."""
        if self.sparse >= _SPARSE:
            return "shrink: filters that do nothing"
        if self.taps != _TAPS or self.count < _ENOUGH:
            return ""
        if self.entropy >= self.random:
            return "looks untrained: wider than it need be"
        return "factorize: few directions" if self.entropy < _FEW else ""


def filters(graph: fx.GraphModule) -> list[Filters]:
    """Of each convolution with kernels of more than one tap, in order."""
    found = []
    for node in graphs.computes(graph):
        layer = graphs.module(node)
        if isinstance(layer, nn.modules.conv._ConvNd) and math.prod(layer.kernel_size) > 1:  # noqa: SLF001 - torch's only common class
            found.append(_filters(graphs.key(node), layer))
    return found


def _filters(name: str, layer: nn.modules.conv._ConvNd) -> Filters:
    weight = layer.weight.detach().double()
    rows, outputs = weight.flatten(2).flatten(0, 1), weights.by_output(layer, weight).flatten(1)
    sparse = 1 - float(alive(weight.flatten(2)).double().mean())
    return Filters(
        name, rows.shape[0], rows.shape[1], sparse, entropy(rows), threshold(len(rows)), orthogonality(outputs)
    )


def alive(filters: Tensor) -> Tensor:
    """Which of a layer's filters [outputs, inputs, taps] do something: boolean [outputs, inputs]."""
    size = filters.abs()
    found: Tensor = size.amax(2) > size.max() / _NEAR
    return found


def apart(outputs: Tensor) -> Tensor:
    """One less the largest cosine, without its sign, between the weights [outputs, inputs x taps] of an output and
    those of another: 0 where another reads the same."""
    if len(outputs) == 1:
        return torch.ones(1, dtype=outputs.dtype)
    unit = outputs / outputs.norm(dim=1, keepdim=True).clamp(min=torch.finfo(outputs.dtype).tiny)
    cosines = (unit @ unit.T).abs().fill_diagonal_(0)
    found: Tensor = 1 - cosines.amax(1)
    return found


def entropy(rows: Tensor) -> float:
    """Of the variance of `rows` [filters, taps] along their principal directions: -sum p log10 p."""
    variance = torch.linalg.svdvals(rows - rows.mean(0)).square()
    part = variance / variance.sum().clamp(min=torch.finfo(variance.dtype).tiny)
    return float(-(part * part.clamp(min=1e-300).log10()).sum())


def threshold(count: int) -> float:
    """The entropy that so many 3x3 filters of noise have, by the authors' fit."""
    return 1.26 / (1 + math.exp(-0.89 * (math.log2(count) - 2.30))) - 0.31


def orthogonality(outputs: Tensor) -> float:
    """1 less the mean cosine, without its sign, between the weights [outputs, inputs x taps] of two outputs."""
    count = len(outputs)
    if count == 1:
        return 1.0
    unit = outputs / outputs.norm(dim=1, keepdim=True).clamp(min=1e-300)
    cosines = (unit @ unit.T).abs()
    return 1 - float(cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1))
