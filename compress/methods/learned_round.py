"""Learned rounding: each weight takes that neighbour on its grid with which its layer errs least on calibration data.

Layer by layer in execution order, on what the quantized layers before it really make, towards what the float network
makes there; the bias takes off what mean error is left, so that bias correction has nothing more to do.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, fx

from convkit.compress import graph as graphs
from convkit.compress import patches, rounding, stored, weights
from convkit.compress.lockstep import Lockstep
from convkit.compress.method import Batches, Method
from convkit.compress.moments import Moments

_POSITIONS = 8192
"""Output positions of a layer that are looked at, over all samples; at least one of each sample."""
_HELD_BACK = 4
"""Every so manyth sample is not learned from: an output whose error does not fall on them keeps nearest rounding."""


def learn(graph: fx.GraphModule, exact: fx.GraphModule, inputs: tuple[str, ...], samples: Batches) -> fx.GraphModule:
    """`graph`, quantized, with codes and biases of its layers learned on `samples` towards the outputs of `exact`."""
    with torch.no_grad():
        wanted, run = _layers(exact, inputs, samples), Lockstep(graph, inputs, samples)
        for node in graph.graph.nodes:
            held = stored.weight(node)
            if held is not None:
                layer, outputs = next(found for found in wanted if graphs.key(found[0]) == node.meta["layer"])
                seen, kept_back = _moments(node, run.values(node.args[0]), outputs)
                _learn_layer(held, _rows(layer, node), seen, kept_back)
                for constant in filter(None, (held.numbers, stored.bias(node))):
                    run.renew(constant)
            run.advance(node)
    return graph


def _layers(exact: fx.GraphModule, inputs: tuple[str, ...], samples: Batches) -> Iterator[tuple[fx.Node, list[Tensor]]]:
    """Each layer of the float network with what it makes, in execution order."""
    run = Lockstep(exact, inputs, samples)
    for node in exact.graph.nodes:
        values = run.advance(node)
        if node.op == "call_module":
            yield node, values


def _rows(layer: fx.Node, node: fx.Node) -> Tensor:
    """The float weight of `layer`, as [groups, m, k] of the quantized `node`."""
    module = graphs.module(layer)
    assert module is not None  # noqa: S101 - a call_module node
    assert isinstance(module.weight, Tensor)  # noqa: S101 - every layer has one
    rows = weights.by_output(module, module.weight).flatten(1).double()
    groups = patches.groups(node)
    return rows.reshape(groups, len(rows) // groups, -1)


def _moments(node: fx.Node, inputs: list[Tensor], outputs: list[Tensor]) -> tuple[Moments, Moments]:
    """Of the samples that are learned from, and of those held back; the same ones where there are too few to part."""
    generator, count = torch.Generator().manual_seed(0), sum(map(len, inputs))
    most = -(-_POSITIONS // count)
    found = patches.joined(
        [patches.of(node, x, y, most, generator) for x, y in zip(inputs, outputs, strict=True)],
    )
    kept_back = torch.arange(count) % _HELD_BACK == _HELD_BACK - 1
    seen, held_back = (Moments.of(patches.of_samples(found, which)) for which in (~kept_back, kept_back))
    return seen, held_back if held_back.count else seen


def _learn_layer(held: stored.Weight, weight: Tensor, seen: Moments, kept_back: Moments) -> None:
    """Write the codes and the bias of a layer; `weight` [groups, m, k] is its float weight."""
    grid, numbers = held.grid(), stored.bias(held.node)
    learned, nearest = rounding.learn(weight, grid, seen, centred=numbers is not None), grid.nearest(weight)
    errors = [kept_back.error(rows, seen.bias(rows) * (numbers is not None)) for rows in (learned, nearest)]
    rows = torch.where((errors[0] < errors[1])[..., None], learned, nearest)
    held.write(rows)
    if numbers is not None:
        stored.write_bias(numbers, (seen + kept_back).bias(rows).flatten())


PART = Method(
    about="round each weight up or down by what its layer's output loses", change=learn, before=False, exact=False
)
