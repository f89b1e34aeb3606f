"""A Trial: a block of a quantized network on the samples that it is learned on, its error and what that hangs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, fx

from convkit.compress import graph as graphs
from convkit.compress import layer_rounding
from convkit.compress.layer_rounding import Seen
from convkit.compress.section import Layer, Section

Soft = Mapping[str, dict[str, Tensor]]
"""Parameters by layer and name."""
Errors = tuple[float, float]
"""Squared error over all that is learned from, and over what is held back."""


class Trial:
    """`section` on the batches it starts from, with the outputs wanted of it, and the moments `seen` of its layers."""

    def __init__(
        self, section: Section, starts: Sequence[Tensor], wanted: Sequence[Tensor], seen: Mapping[fx.Node, Seen]
    ) -> None:
        self.section, self.seen = section, seen
        self._starts, self._wanted = starts, wanted
        kept = layer_rounding.held_back(sum(map(len, starts)))
        self._kept = torch.split(kept, [len(start) for start in starts])
        self.made: list[Tensor] = []
        """What the quantized block makes of each batch; `errors` renews it."""

    def errors(self) -> Errors:
        """As the codes stand now; where nothing is held back, of what is learned from twice."""
        self.made = [self.section.rounded(x) for x in self._starts]
        each = torch.cat(
            [(m - w).flatten(1).double().square().sum(1) for m, w in zip(self.made, self._wanted, strict=True)]
        )
        kept = torch.cat(self._kept)
        learned, other = (float(each[which].sum()) for which in (~kept, kept))
        return learned, other if bool(kept.any()) else learned

    def slopes(self, layer: Layer) -> dict[str, Tensor]:
        """Gradient of half the squared error by the parameters of `layer`, float64; `errors` has been asked before."""
        total: dict[str, Tensor] = {}
        for x, error, soft in self._learned():
            own = soft[graphs.key(layer.exact)]
            for parameter in own.values():
                parameter.requires_grad_()
            found = _gradients(list(own.values()), error, lambda x=x, soft=soft: self.section.soft(x, {}, soft))  # type: ignore[misc]
            for name, gradient in zip(own, found, strict=True):
                total[name] = total.get(name, torch.zeros((), dtype=torch.float64)) + gradient.double()
        return total

    def weights(self) -> dict[fx.Node, Tensor]:
        """By layer, for each output channel: J'J's diagonal over all places, J the block's output by the layer's."""
        generator = torch.Generator().manual_seed(0)
        total: dict[fx.Node, Tensor] = {}
        for x, error, soft in self._learned():
            probe = torch.randint(0, 2, error.shape, generator=generator).to(error.dtype) * 2 - 1
            shifts = {
                layer.exact: torch.zeros(_shape(layer, len(x)), requires_grad=True) for layer in self.section.layers
            }
            found = _gradients(
                list(shifts.values()),
                probe,
                lambda x=x, soft=soft, shifts=shifts: self.section.soft(x, shifts, soft),  # type: ignore[misc]
            )
            for layer, gradient in zip(self.section.layers, found, strict=True):
                rows = gradient.double().square().movedim(layer.channels, 0).flatten(1).sum(1)
                total[layer.exact] = total.get(layer.exact, torch.zeros_like(rows)) + rows
        return total

    def _learned(self) -> Iterator[tuple[Tensor, Tensor, Soft]]:
        """Start and error of the samples in each batch that are learned from, with parameters of their own."""
        for x, made, wanted, kept in zip(self._starts, self.made, self._wanted, self._kept, strict=True):
            if not bool(kept.all()):
                soft = {graphs.key(layer.exact): layer.soft() for layer in self.section.layers}
                yield x[~kept], (made - wanted)[~kept], soft


def _gradients(sources: list[Tensor], vector: Tensor, run: Callable[[], Tensor]) -> tuple[Tensor, ...]:
    """Of the product of what `run` makes with `vector`, by each of `sources`."""
    with torch.enable_grad():
        found = torch.autograd.grad(run(), sources, vector, allow_unused=True)
    return tuple(torch.zeros_like(s) if g is None else g for s, g in zip(sources, found, strict=True))


def _shape(layer: Layer, count: int) -> tuple[int, ...]:
    """Of what `layer` makes of `count` samples."""
    shape = graphs.shape(layer.exact)
    assert shape is not None  # a prepared model has shapes  # noqa: S101
    return (count, *shape[1:])
