"""What channels are worth: how much the loss of a network grows without them, foretold by a few backward passes.

Taking a class of channels out, with their means put into the biases of the layers that read them, changes the features
u of the outputs to first order by the sum over these layers of ⟨∂u/∂W[:, c], W[:, c]⟩ less what the means keep. For a
random probe v the square of vᵀ of that, on one sample, is the squared error that arrives at u (see `search/loss`): the
Taylor criterion of Molchanov et al. (Importance estimation for neural network pruning, CVPR 2019) by the same loss as
formats are searched by, with the curvature that probes give in place of the gradient of labels alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from convkit.compress import graph as graphs
from convkit.compress import weights
from convkit.compress.lockstep import Lockstep
from convkit.compress.method import Batches
from convkit.compress.model import Model, clone
from convkit.compress.search import sensitivity
from convkit.compress.search.sensitivity import Labels, Probes
from convkit.compress.shrinking.classes import Along
from convkit.compress.shrinking.coupling import Coupling, is_dense

Layer = nn.modules.conv._ConvNd | nn.Linear  # noqa: SLF001 - torch's only common class of 1-D to 3-D


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """A layer of its own that reads channels `labels` [inputs], whose means are `mean` [inputs]."""

    layer: Layer
    labels: Tensor
    mean: Tensor

    def sums(self, weight: Tensor) -> Tensor:
        """`weight`, or its gradient, as [outputs, inputs, kernel]."""
        first = weight.transpose(0, 1) if isinstance(self.layer, nn.modules.conv._ConvTransposeNd) else weight  # noqa: SLF001
        return first.flatten(2) if first.ndim > 2 else first[..., None]  # noqa: PLR2004 - a matrix


def readers(coupled: Coupling, graph: fx.GraphModule) -> Iterator[tuple[fx.Node, Along, Layer]]:
    """Layers of `graph` that read channels which may go without what they make; weights that are shared once."""
    seen: set[int] = set()
    for node, along in coupled.reads.items():
        layer = graph.get_submodule(str(node.target)) if is_dense(node) else None
        if isinstance(layer, Layer) and id(layer.weight) not in seen:
            seen.add(id(layer.weight))
            yield node, along, layer


def means(model: Model, coupled: Coupling, samples: Batches) -> dict[fx.Node, Tensor]:
    """Of the channels that each layer reads, over all samples and positions: float32 [inputs]."""
    wanted, run = dict(coupled.reads), Lockstep(model.graph, [spec.name for spec in model.inputs], samples)
    found: dict[fx.Node, Tensor] = {}
    with torch.no_grad():
        for node in model.graph.graph.nodes:
            if node.op == "output" or len(found) == len(wanted):
                break
            if node in wanted:
                axis = wanted[node].axis
                parts = [x.float().movedim(axis, 0).flatten(1) for x in run.read(node)]
                found[node] = torch.cat(parts, 1).mean(1)
            run.advance(node)
    return found


def worth(
    model: Model, coupled: Coupling, samples: Batches, labels: Labels = None, probes: Probes | None = None
) -> dict[int, float]:
    """Expected growth of the loss without each class of channels, all others being there; of `model`, whose graph
    `coupled` is about. The loss is that of `sensitivity`: the distance to the float outputs, or by `labels`.
    """
    if not coupled.families:
        return {}
    batches, wanted = sensitivity.apart(model, samples, labels)
    loss, drawn = sensitivity.loss_of(model, batches, wanted), probes or Probes()
    generator = torch.Generator().manual_seed(drawn.seed)
    own, mean = clone(model.graph), means(model, coupled, samples)
    found = [Reader(layer, along.labels, mean[node]) for node, along, layer in readers(coupled, own)]
    places = {root: at for at, root in enumerate(root for one in coupled.families for root in one.classes)}
    weights = [tensor for one in found for tensor in _parameters(one)]
    for tensor in weights:
        tensor.requires_grad_()
    total = torch.zeros(len(places), dtype=torch.float64)
    for at, batch in enumerate(batches):
        with torch.enable_grad():
            made = own(*(batch[spec.name] for spec in model.inputs))
            features = loss.features([z for z in made if z.is_floating_point()])
        exact = [u.detach() for u in features]
        for _ in range(drawn.count):
            changed = _change(found, places, features, weights, loss.probe(exact, at, generator))
            total += changed.square() / drawn.count
        slope = loss.slope(exact, at)
        if slope is not None:
            total -= _change(found, places, features, weights, slope)
    return {root: float(total[at]) for root, at in places.items()}


def by_makers(model: Model, coupled: Coupling, of: Callable[[Tensor], Tensor]) -> dict[int, float]:
    """Of each class of channels the sum, over the layers that make it, of what `of` says of their outputs [outputs],
    told the filters [outputs, inputs, taps] of a layer in float64.
    """
    found = {root: 0.0 for one in coupled.families for root in one.classes}
    for node in model.graph.graph.nodes:
        layer, along = graphs.module(node), coupled.known.get(node)
        if not isinstance(layer, Layer) or not isinstance(along, Along):
            continue
        rows = weights.by_output(layer, layer.weight.detach()).double()
        if len(rows) != len(along.labels):  # of a grouped transposed one
            continue
        values = of(rows.flatten(2) if rows.ndim > 2 else rows[..., None])  # noqa: PLR2004 - a matrix
        for label, value in zip(along.labels.tolist(), values.tolist(), strict=True):
            if label in found:
                found[label] += value
    return found


def _parameters(reader: Reader) -> list[Tensor]:
    return [reader.layer.weight, *([] if reader.layer.bias is None else [reader.layer.bias])]


def _reached(layer: Layer) -> float:
    """The part of what `layer` makes that one tap of its kernel reaches: all, but of a transposed one with strides."""
    return 1 / math.prod(layer.stride) if isinstance(layer, nn.modules.conv._ConvTransposeNd) else 1.0  # noqa: SLF001


def _change(
    found: Sequence[Reader],
    places: Mapping[int, int],
    features: Sequence[Tensor],
    weights: Sequence[Tensor],
    seeds: Sequence[Tensor],
) -> Tensor:
    """What vᵀu loses of each class of channels, float64 [classes]."""
    reached = [(u, v) for u, v in zip(features, seeds, strict=True) if u.requires_grad]
    ends, vectors = zip(*reached, strict=True)
    gradients = iter(torch.autograd.grad(ends, list(weights), vectors, retain_graph=True, allow_unused=True))
    lost = torch.zeros(len(places), dtype=torch.float64)
    for one in found:
        by_weight, by_bias = next(gradients), None if one.layer.bias is None else next(gradients)
        if by_weight is None:
            continue
        held = one.sums(one.layer.weight.detach())
        each = (held * one.sums(by_weight)).sum((0, 2))
        if by_bias is not None:
            each = each - one.mean * (by_bias @ held.sum(2)) * _reached(one.layer)
        inside = [(at, places[label]) for at, label in enumerate(one.labels.tolist()) if label in places]
        if inside:
            own, classes = (torch.tensor(side) for side in zip(*inside, strict=True))
            lost.index_add_(0, classes, each[own].double())
    return lost
