"""Norm re-estimation: what rounding does to the scale and the mean of each channel of a layer is taken out again.

For every output channel the a and b with the least E[(a y' + b - y)^2] between what the quantized layer makes, y', and
the float one, y: what re-estimated batch norm statistics do (Sun et al. 2019), here by least squares. Both go into what
is stored anyway, the channel's weight scale and the bias, so that the engine computes exactly this. Layer by layer in
execution order; a channel on which samples held back do not gain stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from convkit.compress import graph as graphs
from convkit.compress import layer_rounding, stored
from convkit.compress.lockstep import Lockstep, constant
from convkit.compress.method import Batches, Method
from convkit.compress.methods.learned_round import layers_of

_SCALES = 0.5, 2.0
"""Between these a channel is scaled."""
_TINY = 1e-300


@dataclass(frozen=True, slots=True)
class Fit:
    """Means over positions, float64 [m]: of y' and y, of their squares and of their product."""

    made: Tensor
    wanted: Tensor
    made_square: Tensor
    wanted_square: Tensor
    product: Tensor

    @classmethod
    def of(cls, made: Tensor, wanted: Tensor) -> Fit:
        """Of `made` and `wanted`, [m, positions] each."""
        x, y = made.double(), wanted.double()
        return cls(x.mean(1), y.mean(1), x.square().mean(1), y.square().mean(1), (x * y).mean(1))

    def best(self, *, scaled: bool, shifted: bool) -> tuple[Tensor, Tensor]:
        """(a, b) with the least error, a = 1 where not `scaled`, b = 0 where not `shifted`."""
        mean = self.made * shifted
        variance, common = self.made_square - mean * self.made, self.product - mean * self.wanted
        # A channel that hardly varies says nothing of its scale.
        tells = variance > torch.finfo(torch.float32).eps * self.made_square
        scale = torch.where(tells & scaled, common / variance.clamp(min=_TINY), 1.0).clamp(*_SCALES)
        return scale, (self.wanted - scale * self.made) * shifted

    def error(self, scale: Tensor, shift: Tensor) -> Tensor:
        """E[(a y' + b - y)^2] [m]."""
        squares = scale**2 * self.made_square + self.wanted_square - 2 * scale * self.product
        return squares + shift**2 + 2 * shift * (scale * self.made - self.wanted)


def reestimate(
    graph: fx.GraphModule, exact: fx.GraphModule, inputs: tuple[str, ...], samples: Batches
) -> fx.GraphModule:
    """`graph`, quantized, with scales and biases fitted channel by channel to what `exact` makes of `samples`."""
    with torch.no_grad():
        wanted, run = layers_of(exact, inputs, samples), Lockstep(graph, inputs, samples)
        for node in graph.graph.nodes:
            held = stored.weight(node)
            if held is not None:
                _, outputs = next(found for found in wanted if graphs.key(found[0]) == node.meta["layer"])
                _fit(held, run, outputs)
            run.advance(node)
    return graph


def _fit(held: stored.Weight, run: Lockstep, outputs: list[Tensor]) -> None:
    """Write the scales and the bias of a layer that should make `outputs`."""
    node, numbers, values = held.node, stored.bias(held.node), run.peek(held.node)
    # A MatMul's bias is added behind it.
    late = numbers is not None and numbers not in node.args
    made = [value + constant(numbers) for value in values] if late and numbers is not None else values
    scale, shift = _fitted(node, made, outputs, scaled=held.by_channel, shifted=numbers is not None)
    _write(held, numbers, scale, shift)
    for changed in filter(None, (held.numbers, numbers)):
        run.renew(changed)


def _fitted(
    node: fx.Node, made: list[Tensor], wanted: list[Tensor], *, scaled: bool, shifted: bool
) -> tuple[Tensor, Tensor]:
    """(a, b) of each channel: learned on most samples, 1 and 0 where the others do not gain."""
    axis = -1 if graphs.operator(node) == "MatMul" else 1
    kept = layer_rounding.held_back(sum(map(len, made)))
    every = [torch.cat(batches).movedim(axis, 0) for batches in (made, wanted)]
    learned, other = (Fit.of(*(part[:, which].flatten(1) for part in every)) for which in _parts(kept))
    scale, shift = learned.best(scaled=scaled, shifted=shifted)
    gains = other.error(scale, shift) < other.error(torch.ones_like(scale), torch.zeros_like(shift))
    return torch.where(gains, scale, 1.0), torch.where(gains, shift, 0.0)


def _parts(kept: Tensor) -> tuple[Tensor, Tensor]:
    """What is learned from and what is held back; all of it where there is too little to part."""
    return ~kept, kept if bool(kept.any()) else ~kept


def _write(held: stored.Weight, numbers: fx.Node | None, scale: Tensor, shift: Tensor) -> None:
    bias = None if numbers is None else constant(numbers).double().flatten()
    if held.by_channel:
        held.rescale(scale)
    if numbers is not None and bias is not None:
        stored.write_bias(numbers, scale * bias + shift)


PART = Method(change=reestimate, before=False, exact=False)
