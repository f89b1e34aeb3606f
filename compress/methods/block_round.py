"""Block-wise learned rounding: the codes of a block's layers, moved by what the whole block loses.

Each layer starts from learned rounding of its own. Then, layer by layer, the block's squared error E is expanded around
the codes at hand: its gradient by the weight, through the block's float operators, from the error that the quantized
block really makes; its curvature the layer's second moments times what a change of each output channel weighs at the
end of the block (the diagonal of J'J, by Hutchinson's probes). Descent on that form moves codes between their two
neighbours on the grid. A move stays if the quantized block then errs less, both on what it learned from and on samples
held back. The aim is BRECQ's (Li et al. 2021, eq. 10), without its relaxation of the codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, fx

from convkit.compress import graph as graphs
from convkit.compress import layer_rounding, patches, rounding, stored
from convkit.compress.lockstep import Lockstep, constant
from convkit.compress.method import Batches, Method
from convkit.compress.moments import Moments
from convkit.compress.section import Layer, Section, sections
from convkit.compress.trial import Errors, Trial

_LAYERS = 3
"""Layers of a block, where the network's tensors allow so few: as many as an inverted residual has."""
_ROUNDS, _WORTH_IT = 2, 0.99
"""How often each layer of a block is looked at; the error at which another round is worth it, over that before."""
_CAUTION = (1.0, 4.0, 16.0)
"""What the curvature is multiplied by, one after the other until a move stays: J'J is more than its diagonal."""
_TINY = 1e-30


def learn(graph: fx.GraphModule, exact: fx.GraphModule, inputs: tuple[str, ...], samples: Batches) -> fx.GraphModule:
    """`graph`, quantized, with codes, scales and biases learned on `samples` towards what `exact` makes of them."""
    with torch.no_grad():
        _Learner(graph, exact, inputs, samples).learn(graph)
    return graph


class _Learner:
    """Both networks on all samples, in step; what the blocks at hand start from and what their layers have seen."""

    def __init__(self, graph: fx.GraphModule, exact: fx.GraphModule, inputs: tuple[str, ...], samples: Batches) -> None:
        found = sections(graph, exact, _LAYERS)
        self._by_start = {section.start: section for section in found}
        self._by_end = {section.end: section for section in found}
        self._starts: dict[fx.Node, list[Tensor]] = {}
        self._seen: dict[fx.Node, layer_rounding.Seen] = {}
        self._wanted, self._run = _made(exact, found, inputs, samples), Lockstep(graph, inputs, samples)

    def learn(self, graph: fx.GraphModule) -> None:
        """Layer by layer, block by block."""
        for node in graph.graph.nodes:
            held = stored.weight(node)
            if held is not None:
                self._learn_layer(held)
            values = self._run.advance(node)
            if node in self._by_end:
                values = self._learn_block(self._by_end[node])
            if node in self._by_start:
                self._starts[self._by_start[node].end] = values

    def _learn_layer(self, held: stored.Weight) -> None:
        layer, outputs = next(made for made in self._wanted if graphs.key(made[0]) == held.node.meta["layer"])
        seen = layer_rounding.moments(held.node, self._run.read(held.node), outputs)
        layer_rounding.learn(held, layer_rounding.float_rows(layer, held.node), seen, self._run)
        self._seen[held.node] = seen

    def _learn_block(self, section: Section) -> list[Tensor]:
        """What the block makes of each batch afterwards."""
        _, outputs = next(made for made in self._wanted if made[0] is section.block.end)
        trial = Trial(section, self._starts.pop(section.end), outputs, self._seen)
        refine(trial)
        for layer in section.layers:
            for numbers in filter(None, (layer.held.numbers, stored.bias(layer.held.node))):
                self._run.renew(numbers)
        self._seen = {}
        return self._run.replace(section.end, trial.made)


def _made(
    exact: fx.GraphModule, found: Sequence[Section], inputs: tuple[str, ...], samples: Batches
) -> Iterator[tuple[fx.Node, list[Tensor]]]:
    """Each layer and each end of a block of the float network with what it makes, in execution order.

    What is both comes twice.
    """
    run, ends = Lockstep(exact, inputs, samples), {section.block.end for section in found}
    for node in exact.graph.nodes:
        values = run.advance(node)
        yield from ((node, values) for is_wanted in (node.op == "call_module", node in ends) if is_wanted)


def refine(trial: Trial) -> None:
    """Move codes of the section's layers as long as that is worth it; the outputs that `trial` holds are new then."""
    best = trial.errors()
    weights = trial.weights()
    for _ in range(_ROUNDS):
        before = best
        for layer in trial.section.layers:
            best = _moved(trial, layer, weights[layer.exact], best)
        if best[0] > _WORTH_IT * before[0]:
            break


def _moved(trial: Trial, layer: Layer, weight: Tensor, best: Errors) -> Errors:
    """The errors after codes of `layer`, whose output channels weigh `weight`, were moved, if that helped."""
    held, slopes = layer.held, trial.slopes(layer)
    now, numbers = patches.rows(held.node, constant(held.numbers)).double(), stored.bias(held.node)
    bias = None if numbers is None else constant(numbers).flatten().double()
    moments = trial.seen[held.node].learned
    square, gradient = _centred(layer, moments, slopes)
    sides = _sides(held, layer_rounding.float_rows(layer.exact, held.node), now)
    for caution in _CAUTION:
        curve = (weight * caution).clamp(min=_TINY)
        rows = rounding.descend(square, now @ square - gradient / curve.reshape(*now.shape[:2], 1), now, sides)
        if torch.equal(rows, now):
            return best
        held.write(rows)
        if numbers is not None and bias is not None:
            mean = ((rows - now) @ (moments.x / moments.count)[..., None])[..., 0]
            stored.write_bias(numbers, bias - slopes["bias"] / curve - mean.flatten())
        found = trial.errors()
        if all(one < other for one, other in zip(found, best, strict=True)):
            return found
        held.write(now)
        if numbers is not None and bias is not None:
            stored.write_bias(numbers, bias)
    return trial.errors()


def _centred(layer: Layer, moments: Moments, slopes: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(H, gradient): the layer's damped second moments and the slopes by its weight; a bias takes off each mean."""
    biased = "bias" in slopes
    square, gradient = moments.normal(centred=biased)[0], layer.rows(slopes["weight"])
    if biased:
        gradient -= slopes["bias"].reshape(*gradient.shape[:2], 1) * (moments.x / moments.count)[:, None]
    return rounding.damped(square, moments.count), gradient


def _sides(held: stored.Weight, exact: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
    """The neighbours of each weight on its grid; where it lies elsewhere, that too."""
    below, above = held.grid().neighbours(exact)
    return torch.minimum(below, now), torch.maximum(above, now)


PART = Method(
    change=learn,
    before=False,
    exact=False,
    learns=True,
)
