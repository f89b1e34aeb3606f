"""Rounding by its effect: which of its two neighbours on the grid each weight takes, so that the output errs least.

The squared error of a linear layer is a quadratic form of its weights (`compress.moments`). Nearest rounding minimizes
it as if inputs were independent; here one weight after the other takes the better of its neighbours given all others,
until none moves. The aim is AdaRound's (Nagel et al. 2020); descent on the form itself needs no relaxation of it and
only ever goes down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from convkit.compress.format import Format
from convkit.compress.moments import Moments

_DAMPING, _LEAST_DAMPING, _DAMPING_BY_NUMBER = 0.5, 0.01, 8.0
"""Of the mean second moment, added to each: what little data says of a weight must not move it far. At most and at
least so much, and in between so many times the weights that a position has to tell of."""
_SHORT = 64
"""Weights in a row up to which every range is tried with learned codes."""
_TRIED = 20, 8
"""Ranges, of short rows and of long ones."""
_TURNS = 2, 1
"""How often codes and scales are learned again, of short rows and of long ones."""
_FACTORS = 0.5, 2.0
_TINY = 1e-300
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

    def times(self, factors: Tensor) -> Grid:
        """The grid with its scales times `factors` [groups, m]; scales as float32 has them."""
        return Grid(self.number, (self.scale * factors[..., None]).float().double())

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


@dataclass(frozen=True, slots=True)
class Form:
    """The error of rows w [groups, m, k] as w H w - 2 w C: `square` H [groups, k, k], `cross` C [groups, m, k]."""

    square: Tensor
    cross: Tensor

    @classmethod
    def of(cls, weight: Tensor, moments: Moments, *, centred: bool) -> Form:
        """That of `moments`, damped towards `weight`, more the fewer positions there are for each of its numbers.

        `centred` says that a bias follows, as `Moments.normal` has it.
        """
        square, cross = moments.normal(centred=centred)
        whole = damped(square, moments.count)
        return cls(whole, cross + (whole - square).diagonal(dim1=1, dim2=2)[:, None] * weight)

    def error(self, rows: Tensor) -> Tensor:
        """[groups, m]: the error of `rows`, less what does not depend on them."""
        return ((rows @ self.square - 2 * self.cross) * rows).sum(-1)

    def factor(self, rows: Tensor) -> Tensor:
        """[groups, m]: what `rows` are best multiplied by (least squares); 1 where they are all zero."""
        curve = ((rows @ self.square) * rows).sum(-1)
        return torch.where(curve > 0, (rows * self.cross).sum(-1) / curve.clamp(min=_TINY), 1.0).clamp(*_FACTORS)


def damped(square: Tensor, count: int) -> Tensor:
    """Second moments `square` [groups, k, k], some of their mean added to each: the more the fewer positions."""
    k = square.shape[-1]
    share = min(_DAMPING, max(_LEAST_DAMPING, _DAMPING_BY_NUMBER * k / count))
    damping = share * square.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] + torch.finfo(torch.float32).tiny
    return square + damping * torch.eye(k, dtype=square.dtype)


def learn(weight: Tensor, grid: Grid, form: Form) -> Tensor:
    """`weight` [groups, m, k] on `grid`, float64, rounded so that the error by `form` is small."""
    return descend(form.square, form.cross, grid.nearest(weight.double()), grid.neighbours(weight.double()))


def fit(weight: Tensor, grid: Grid, form: Form) -> tuple[Tensor, Tensor]:
    """(rows, factors): `weight` [groups, m, k] on `grid` with its scale, one a row, times factors [groups, m].

    Ranges are tried coarsely, by the error of nearest rounding or, where rows are short, of learned rounding; then
    codes and the scale that suits them best are learned in turn.
    """
    own = grid.scale.amax(-1)
    best, least = torch.ones_like(own), torch.full_like(own, torch.inf)
    long = weight.shape[-1] > _SHORT
    rounded = _nearest if long else learn
    for tried in (torch.ones_like(own), *_ranges(weight, grid, _TRIED[long])):
        error = form.error(rounded(weight, grid.times(tried), form))
        best, least = torch.where(error < least, tried, best), torch.minimum(error, least)
    rows = learn(weight, grid.times(best), form)
    least = form.error(rows)
    for _ in range(_TURNS[long]):
        tried = best * form.factor(rows)
        again = learn(weight, grid.times(tried), form)
        error = form.error(again)
        better = error < least
        best, least = torch.where(better, tried, best), torch.minimum(error, least)
        rows = torch.where(better[..., None], again, rows)
    return rows, best


def _nearest(weight: Tensor, grid: Grid, _: Form) -> Tensor:
    return grid.nearest(weight.double())


def _ranges(weight: Tensor, grid: Grid, count: int) -> Iterator[Tensor]:
    """Some `count` factors [groups, m] that give each row's scale a fraction of its range."""
    peak = weight.abs().amax(-1)
    whole = grid.number.parameters(-peak, peak)[0] / grid.scale.amax(-1)
    fractions = grid.number.fractions()
    for fraction in fractions[:: max(1, len(fractions) // count)]:
        yield torch.where(peak > 0, whole * fraction, 1.0).double()


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
