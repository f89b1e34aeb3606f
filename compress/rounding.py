"""Rounding by its effect: which of its two neighbours on the grid each weight takes, so that the output errs least.

The squared error of a linear layer is a quadratic form of its weights (`compress.moments`). Nearest rounding minimizes
it as if inputs were independent; here one weight after the other takes the better of its neighbours given all others,
until none moves. The aim is AdaRound's (Nagel et al. 2020); descent on the form itself needs no relaxation of it and
only ever goes down.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from convkit.compress.format import Format
from convkit.compress.moments import Moments

_DAMPING = 0.5
"""Of the mean second moment, added to each: what little data says of a weight must not move it far."""
_SWEEPS = 8
_BLOCK = 64
"""Weights between two updates of the whole gradient."""
_DOUBLINGS = 64
_FAR = 2.0**20


@dataclass(frozen=True, slots=True)
class Grid:
    """The values that a weight may take: those of `number` at `scale`, which broadcasts over the weight."""

    number: Format
    scale: Tensor

    def nearest(self, values: Tensor) -> Tensor:
        """`values` on the grid."""
        return self.number.fake(values, self.scale, torch.zeros_like(self.scale))

    def neighbours(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The grid's values next below and above, equal where `values` lie on the grid or beyond its ends.

        Found by stepping away from the nearest: the first step, doubled each time, that leaves it meets the other.
        """
        nearest = self.nearest(values)
        away, step = torch.sign(values - nearest), (values - nearest).abs()
        other, pending = nearest, self.nearest(nearest + away * _FAR * self.scale) != nearest
        for _ in range(_DOUBLINGS):
            step = step * 2
            reached = self.nearest(nearest + away * step)
            left = pending & (reached != nearest)
            other, pending = torch.where(left, reached, other), pending & ~left
            if not bool(pending.any()):
                break
        return torch.minimum(nearest, other), torch.maximum(nearest, other)


def learn(weight: Tensor, grid: Grid, moments: Moments, *, centred: bool) -> Tensor:
    """`weight` [groups, m, k] on `grid`, float64, rounded so that the error by `moments` is small.

    `centred` says that a bias follows, as `Moments.normal` has it.
    """
    square, cross = moments.normal(centred=centred)
    damping = _DAMPING * square.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] + torch.finfo(torch.float32).tiny
    square = square + damping * torch.eye(square.shape[-1], dtype=square.dtype)
    below, above = grid.neighbours(weight.double())
    start = grid.nearest(weight.double())
    return descend(square, cross + damping * weight, start, (below, above))


def descend(square: Tensor, cross: Tensor, start: Tensor, neighbours: tuple[Tensor, Tensor]) -> Tensor:
    """The values among `neighbours`, two [groups, m, k], that minimize w H w - 2 w C from `start` on, coordinate by
    coordinate: no single one of them would lower it any more, or the sweeps are spent.

    `square` is H [groups, k, k] with a positive diagonal, `cross` C [groups, m, k].
    """
    below, above, values = (t.mT.clone(memory_format=torch.contiguous_format) for t in (*neighbours, start))
    gradient = square @ values - cross.mT
    for _ in range(_SWEEPS):
        moved = False
        for first in range(0, values.shape[1], _BLOCK):
            block = slice(first, first + _BLOCK)
            new = _settled(
                square[:, block, block], gradient[:, block], values[:, block], below[:, block], above[:, block]
            )
            change = new - values[:, block]
            if bool(change.any()):
                gradient += square[:, :, block] @ change
                values[:, block], moved = new, True
        if not moved:
            break
    return values.mT


def _settled(square: Tensor, gradient: Tensor, values: Tensor, below: Tensor, above: Tensor) -> Tensor:
    """`values` [groups, block, m] after each took the neighbour nearer to its minimum, one after the other."""
    values, gradient, middle = values.clone(), gradient.clone(), (below + above) / 2
    for row in range(values.shape[1]):
        best = values[:, row] - gradient[:, row] / square[:, row, row, None]
        chosen = torch.where(best > middle[:, row], above[:, row], below[:, row])
        gradient += square[:, :, row, None] * (chosen - values[:, row])[:, None]
        values[:, row] = chosen
    return values
