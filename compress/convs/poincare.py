"""Poincaré convolution: a hyperbolic layer whose inputs and outputs are tangent vectors at the origin of the ball.

van Spengler et al., Poincaré ResNet, ICCV 2023; the layer is that of Shimizu et al., Hyperbolic Neural Networks++, ICLR
2021. Patches never meet as such: their product with a kernel is a convolution, and so is their squared norm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.adopting import Adopting, State, renamed
from convkit.compress.conv import Conv, Example

_TINY = 1e-15
_CURVATURES: Mapping[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    "ball.isp_c": (torch.positive, F.softplus),
    "manifold.c.value": (F.softplus,),
}
"""What the reference implementation and HypLL call what the ball's curvature is made of, and how."""


def beta(a: float, b: float) -> float:
    """Euler's beta function."""
    return math.exp(math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b))


class PoincareConvolution2d(Adopting):
    """x [N, Cin, H, W]. `weights` [Cin kh kw, Cout] and `bias` [Cout] are called and laid out as in the reference
    implementation; `c` is the ball's curvature, which weights to load must share where they tell it. As there, points
    are kept inside the ball, at most at 1 - 4e-3 of its radius (1 - 1e-5 in float64).

    That implementation has a conformal factor of 2 (1 - c |p|²) where the paper has 2 / (1 - c |p|²): weights trained
    with it want `as_released`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_dims: tuple[int, int],
        *,
        c: float = 0.1,
        bias: bool = True,
        stride: int = 1,
        padding: int = 0,
        as_released: bool = True,
    ) -> None:
        super().__init__()
        if c <= 0:
            raise ValueError(f"the curvature of a Poincaré ball is positive, not {c:g}")
        taps = kernel_dims[0] * kernel_dims[1]
        std = (2 * in_channels * taps * out_channels) ** -0.5
        self.weights = nn.Parameter(torch.randn(taps * in_channels, out_channels) * std)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.kernel_dims, self.stride, self.padding = tuple(kernel_dims), stride, padding
        self.c, self.root, self.as_released = c, math.sqrt(c), as_released
        self.ratio = beta(in_channels * taps / 2, 0.5) / beta(in_channels / 2, 0.5)

    def own(self, state: State) -> State:
        """Without the curvature, which is this layer's: the reference implementation stores it as it is, or where it is
        learnt before a softplus, HypLL always before one.
        """
        for name, ways in _CURVATURES.items():
            told = [way(state[name].double()).item() for way in ways if name in state and state[name].numel() == 1]
            if name in state and not any(math.isclose(self.c, one, rel_tol=1e-5) for one in told):
                known = " or, if it was learnt, ".join(f"{one:g}" for one in told) or "no single one"
                raise ValueError(f"{name} is a curvature of {known}, not {self.c:g}: give c")
        return renamed(state, {f"{re.escape(name)}$": None for name in _CURVATURES})

    def forward(self, x: Tensor) -> Tensor:
        channels = len(self.weights) // math.prod(self.kernel_dims)
        if x.ndim != 4 or x.shape[1] != channels:  # noqa: PLR2004 - NCHW
            raise ValueError(f"PoincareConvolution2d takes [N, {channels}, H, W], not {list(x.shape)}")
        kernel = self.weights.t().reshape(-1, channels, *self.kernel_dims)
        product = self.ratio * F.conv2d(x, kernel, None, self.stride, self.padding)
        ones = torch.ones(1, 1, *self.kernel_dims, dtype=x.dtype, device=x.device)
        squares = F.conv2d(x.square().sum(1, keepdim=True), ones, None, self.stride, self.padding)
        # Kept off nothing before the root, whose slope there is none.
        norm = self.ratio * self.root * squares.clamp_min(_tiny(x)).sqrt()
        on_ball = norm.tanh().clamp_max(_edge(x))
        return self._logmap(self._distance(product * on_ball / norm, on_ball.square()))

    def _distance(self, product: Tensor, square: Tensor) -> Tensor:
        """Signed distances to the hyperplanes, of points whose product with each normal is `product` and whose c |p|²
        is `square`.
        """
        root, length = self.root, self.weights.norm(dim=0).clamp_min(_tiny(product) ** 0.5).reshape(-1, 1, 1)
        factor = 2 * (1 - square) if self.as_released else 2 / (1 - square)
        scaled = root / length * factor * product
        if self.bias is not None:
            offset = (2 * root * self.bias).reshape(-1, 1, 1)
            scaled = scaled * offset.cosh() - (factor - 1) * offset.sinh()
        distance: Tensor = 2 * length / root * scaled.asinh()
        return distance

    def _logmap(self, distance: Tensor) -> Tensor:
        """The tangent vector of w / (1 + sqrt(1 + c |w|²)), w = sinh(root v) / root, kept inside the ball:
        tanh(asinh(s) / 2) is s / (1 + sqrt(1 + s²)).
        """
        w = (self.root * distance).sinh()
        s = w.square().sum(1, keepdim=True).clamp_min(_tiny(w)).sqrt()
        length = (s.asinh() / 2).clamp_max(math.atanh(_edge(w)))
        point: Tensor = length / (self.root * s) * w
        return point


def _tiny(x: Tensor) -> float:
    """The least square."""
    return max(_TINY**2, torch.finfo(x.dtype).tiny)


def _edge(x: Tensor) -> float:
    """How far out points stay, of the ball's radius. The reference implementation has 1 - 1e-5 for half precision, too:
    that is 1 there, where nothing is finite.
    """
    return 1 - (1e-5 if x.dtype == torch.float64 else 4e-3)


def _examples() -> Iterator[Example]:
    """Both conformal factors, a kernel that is not square, strides, no bias."""
    for released in (True, False):
        layer = PoincareConvolution2d(4, 6, (3, 3), padding=1, as_released=released)
        if layer.bias is not None:
            nn.init.normal_(layer.bias, std=0.3)
        yield Example(layer, {"x": (4, 7, 10)})
    yield Example(PoincareConvolution2d(3, 5, (1, 3), c=1.0, bias=False, stride=2), {"x": (3, 9, 8)})


_CURVED = "it stands beside its own inverse: errors would be blown up on the way"
PART = Conv(
    paper="Poincaré ResNet (ICCV 2023)",
    tier="T1",
    layers=(PoincareConvolution2d,),
    examples=_examples,
    usual=lambda: Example(PoincareConvolution2d(16, 16, (3, 3), padding=1), {"x": (16, 32, 32)}),
    kept={"Asinh": _CURVED, "Sinh": _CURVED, "Tanh": _CURVED},
)
