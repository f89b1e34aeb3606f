"""Second moments of what a layer reads and should make: all that the squared error of a linear layer depends on.

For a weight row w and bias b, the mean of (w x + b - y)^2 is
w E[x x] w - 2 w E[x y] + E[y y] + b^2 + 2 b (w E[x] - E[y]): exact over however many positions, in a matrix of k by k.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from convkit.compress.patches import Patches


@dataclass(slots=True)
class Moments:
    """Sums over `count` positions of x [groups, k] and y [groups, m], in float64.

    `xx` [groups, k, k], `xy` [groups, m, k], `yy` [groups, m], `x` [groups, k], `y` [groups, m].
    """

    count: int
    xx: Tensor
    xy: Tensor
    yy: Tensor
    x: Tensor
    y: Tensor

    @classmethod
    def of(cls, patches: Patches) -> Moments:
        """Those of `patches`; products in float32, in which some thousand positions lose nothing that matters."""
        x, y = patches.inputs, patches.outputs
        return cls(
            x.shape[1],
            (x.mT @ x).double(),
            (y.mT @ x).double(),
            y.double().square().sum(1),
            x.double().sum(1),
            y.double().sum(1),
        )

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            self.xx + other.xx,
            self.xy + other.xy,
            self.yy + other.yy,
            self.x + other.x,
            self.y + other.y,
        )

    def bias(self, weight: Tensor) -> Tensor:
        """[groups, m]: the bias that leaves no mean error behind `weight` [groups, m, k]."""
        return (self.y - (weight @ self.x[..., None])[..., 0]) / self.count

    def error(self, weight: Tensor, bias: Tensor) -> Tensor:
        """[groups, m]: mean squared error of each output with `weight` [groups, m, k] and `bias` [groups, m]."""
        reached = (weight @ self.x[..., None])[..., 0]
        squares = ((weight @ self.xx - 2 * self.xy) * weight).sum(-1) + self.yy
        return (squares + 2 * bias * (reached - self.y)) / self.count + bias**2

    def normal(self, *, centred: bool) -> tuple[Tensor, Tensor]:
        """(H, C), [groups, k, k] and [groups, m, k]: the error is w H w - 2 w C and something that w does not change.

        Centred where the bias follows the weight: it takes off every mean error.
        """
        square, cross = self.xx / self.count, self.xy / self.count
        if not centred:
            return square, cross
        x, y = self.x / self.count, self.y / self.count
        return square - x[..., None] * x[..., None, :], cross - y[..., None] * x[..., None, :]
