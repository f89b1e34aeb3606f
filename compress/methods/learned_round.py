"""Learned rounding: each weight takes that neighbour on its grid with which its layer errs least on calibration data.

Layer by layer in execution order, on what the quantized layers before it really make, towards what the float network
makes there; the bias takes off what mean error is left, so that bias correction has nothing more to do.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, fx

from convkit.compress import graph as graphs
from convkit.compress import layer_rounding, stored
from convkit.compress.lockstep import Lockstep
from convkit.compress.method import Batches, Method


def learn(
    graph: fx.GraphModule, exact: fx.GraphModule, inputs: tuple[str, ...], samples: Batches, *, scales: bool = False
) -> fx.GraphModule:
    """`graph`, quantized, with codes and biases of its layers learned on `samples` towards the outputs of `exact`.

    `scales`: those of the channels are learned too.
    """
    with torch.no_grad():
        wanted, run = layers_of(exact, inputs, samples), Lockstep(graph, inputs, samples)
        for node in graph.graph.nodes:
            held = stored.weight(node)
            if held is not None:
                layer, outputs = next(found for found in wanted if graphs.key(found[0]) == node.meta["layer"])
                seen = layer_rounding.moments(node, run.read(node), outputs)
                layer_rounding.learn(held, layer_rounding.float_rows(layer, node), seen, run, scales=scales)
            run.advance(node)
    return graph


def layers_of(
    exact: fx.GraphModule, inputs: tuple[str, ...], samples: Batches
) -> Iterator[tuple[fx.Node, list[Tensor]]]:
    """Each layer of the float network with what it makes, in execution order."""
    run = Lockstep(exact, inputs, samples)
    for node in exact.graph.nodes:
        values = run.advance(node)
        if node.op == "call_module":
            yield node, values


PART = Method(
    change=learn,
    before=False,
    exact=False,
    learns=True,
)
