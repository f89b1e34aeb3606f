"""PHC and PHM: hypercomplex layers, whose weight is a sum of Kronecker products of a small algebra and of filters.

Zhang et al., Beyond Fully-Connected Layers with Quaternions, ICLR 2021; Grassucci et al., PHNNs, TNNLS 2022. With
A [n, n, n] and F [n, Cout / n, Cin / n, …] the weight is sum_i A_i (x) F_i over the channels. Trained, it is an
ordinary layer with that weight; a factor of n fewer numbers are stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.adopting import Adopting, State, renamed
from convkit.compress.conv import Conv, Example

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def weight(algebra: Tensor, filters: Tensor) -> Tensor:
    """The sum of Kronecker products of `algebra` [n, n, n] and `filters` [n, O, I, …]: [n O, n I, …]."""
    n, out, read = algebra.shape[0], *filters.shape[1:3]
    summed = torch.einsum("iab,ioc...->aobc...", algebra, filters)
    return summed.reshape(n * out, n * read, *filters.shape[3:])


class _Hypercomplex(Adopting):
    """`names`: of the algebra and the filters. Versions of the reference implementation call these A and F, A and S, or
    a and s; all load.
    """

    def __init__(self, names: tuple[str, str], shape: tuple[int, ...], n: int) -> None:
        super().__init__()
        out, read, *kernel = shape
        if out % n or read % n:
            raise ValueError(f"{read} and {out} channels do not part into {n} parts of a hypercomplex number")
        self._names = names
        setattr(self, names[0], nn.Parameter(nn.init.xavier_uniform_(torch.zeros(n, n, n))))
        filters = torch.zeros(n, out // n, read // n, *kernel)
        setattr(self, names[1], nn.Parameter(nn.init.xavier_uniform_(filters)))
        bound = 1 / math.sqrt(read)
        self.bias = nn.Parameter(torch.empty(out).uniform_(-bound, bound))

    def own(self, state: State) -> State:
        algebra, filters = self._names
        return renamed(state, {"[Aa]$": algebra, "[FSs]$": filters})

    def weight(self) -> Tensor:
        """The weight that its parameters stand for."""
        algebra, filters = (getattr(self, name) for name in self._names)
        return weight(algebra, filters)


class _PHConv(_Hypercomplex):
    rank: int
    """Spatial axes."""

    def __init__(
        self,
        n: int,
        in_features: int,
        out_features: int,
        kernel_size: int,
        *,
        padding: int = 0,
        stride: int = 1,
        dilation: int = 1,
        with_bias: bool = False,
    ) -> None:
        names = ("A", "F") if self.rank == 1 else ("a", "s")
        super().__init__(names, (out_features, in_features, *[kernel_size] * self.rank), n)
        self.with_bias = with_bias
        self.stride, self.padding, self.dilation = stride, padding, dilation

    def forward(self, x: Tensor) -> Tensor:
        """The reference implementation holds a bias that it does not add; so does this one, unless `with_bias`."""
        bias = self.bias if self.with_bias else None
        made: Tensor = _CONV[self.rank](x, self.weight(), bias, self.stride, self.padding, self.dilation)
        return made


class PHConv1d(_PHConv):
    """x [N, Cin, L]."""

    rank = 1


class PHConv2d(_PHConv):
    """x [N, Cin, H, W]."""

    rank = 2


class PHConv3d(_PHConv):
    """x [N, Cin, D, H, W]."""

    rank = 3


class PHMLinear(_Hypercomplex):
    """x […, Cin]; its bias is added."""

    def __init__(self, n: int, in_features: int, out_features: int) -> None:
        super().__init__(("a", "s"), (out_features, in_features), n)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight(), self.bias)


_LAYERS: Mapping[int, type[_PHConv]] = {1: PHConv1d, 2: PHConv2d, 3: PHConv3d}


def _examples() -> Iterator[Example]:
    """Every rank, n of 2, 3 and 4, strides and dilations, odd and even sizes, and the linear one."""
    images = {1: (15,), 2: (9, 14), 3: (5, 6, 7)}
    for (rank, layer), n in zip(_LAYERS.items(), (2, 3, 4), strict=True):
        made = layer(n, 12, 24, 3, padding=1, stride=n - 1, with_bias=rank == 3)  # noqa: PLR2004 - a bias in one
        yield Example(made, {"x": (12, *images[rank])})
    yield Example(PHConv1d(4, 8, 8, 3, padding=2, dilation=2), {"x": (8, 11)})
    yield Example(PHMLinear(4, 12, 8), {"x": (12,)})


PART = Conv(
    paper="Parameterized hypercomplex neural networks (TNNLS 2022)",
    tier="T0",
    layers=(*_LAYERS.values(), PHMLinear),
    examples=_examples,
    usual=lambda: Example(PHConv2d(4, 64, 64, 3, padding=1), {"x": (64, 28, 28)}),
)
