"""Weights of layers that lost some of what they read, fitted to make what they made (He et al., Channel pruning for
accelerating very deep neural networks, ICCV 2017): by the moments of what they read, exactly, without a pass back.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from convkit.compress import factoring, weights
from convkit.compress import graph as graphs
from convkit.compress.factoring import Reads
from convkit.compress.method import Batches
from convkit.compress.model import Model
from convkit.compress.shrinking import worth
from convkit.compress.shrinking.coupling import Coupling

_RIDGE = 1e-4
"""Of the mean square of what is read: what a fit may gain from directions that samples hardly show is chance."""


def refit(model: Model, coupled: Coupling, gone: Collection[int], samples: Batches) -> None:
    """Write into the layers of `model`, whose graph `coupled` is about, weights of zero for the classes `gone` and such
    for the others, and biases, as come nearest to what they make of `samples` with all of them.
    """
    out = torch.tensor(sorted(gone), dtype=torch.int64)
    found = [
        (node, torch.isin(along.labels, out), layer)
        for node, along, layer in worth.readers(coupled, model.graph)
        if bool(torch.isin(along.labels, out).any())
    ]
    names = [graphs.key(node) for node, _, _ in found]
    seen = factoring.reads(model.graph, [spec.name for spec in model.inputs], samples, names)
    for node, lost, layer in found:
        _write(layer, lost, seen[graphs.key(node)])


def _write(layer: worth.Layer, lost: Tensor, seen: Reads) -> None:
    rows = weights.by_output(layer, layer.weight.detach()).flatten(1).double()
    gone = lost.repeat_interleave(rows.shape[1] // len(lost))
    square, mean = seen.square[0], seen.mean[0]
    if layer.bias is not None:
        square = seen.spread[0]
    fitted = torch.zeros_like(rows)
    fitted[:, ~gone] = rows[:, ~gone] + _share(square, gone, rows)
    with torch.no_grad():
        weights.by_output(layer, layer.weight).copy_(fitted.reshape(weights.by_output(layer, layer.weight).shape))
        if layer.bias is not None:  # one of its own: others may have begun with the same
            layer.bias = nn.Parameter(layer.bias + ((rows - fitted) @ mean).to(layer.bias.dtype))


def _share(square: Tensor, gone: Tensor, rows: Tensor) -> Tensor:
    """What of the rows that are gone the others can make: R H[gone, kept] H[kept, kept]⁻¹."""
    kept = square[~gone][:, ~gone]
    ridge = _RIDGE * kept.diagonal().mean() + torch.finfo(kept.dtype).tiny
    system = kept + ridge * torch.eye(len(kept), dtype=kept.dtype)
    shared: Tensor = torch.linalg.solve(system, square[~gone][:, gone] @ rows[:, gone].T).T
    return shared
