"""Convolutions over positions and orientations: separable, with kernels of what rotations and shifts leave as it is.

Bekkers et al., Fast, Expressive SE(n) Equivariant Networks through Weight-Sharing in Position-Orientation Space, ICLR
2024, equations 7 and 12-15. All pairs of a small cloud are looked at, weighed by how near they are; kernels between
orientations depend on their grid alone, and are constants.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.adopting import Adopting, State, renamed
from convkit.compress.conv import Conv, Example

_STEEP = 6
_NAMES = {
    r"(fiber_)?basis_fn\.1\.": r"\1basis_fn.0.",
    r"(fiber_)?basis_fn\.3\.": r"\1basis_fn.2.",
    r"kernel\.": "kernel_spatial.",
    r"fiber_kernel\.": "kernel_spherical.",
    r"callibrated$": None,
    r"windowing_fn\.": None,
}
_BESIDE = r"((?:fiber_)?basis_fn\.|windowing_fn\.|orientations$)"
"""What the reference implementation's network keeps beside its layers, once for all of them."""


def polynomials(x: Tensor, degree: int) -> Tensor:
    """[..., F] to all products of up to `degree` factors: [..., F + F² + …]."""
    powers = [x]
    for _ in range(1, degree):
        powers.append((powers[-1].unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2))
    return torch.cat(powers, -1)


def near(distance: Tensor, radius: float) -> Tensor:
    """1 at no distance, falling smoothly to 0 at `radius` (Gasteiger et al., 2020, equation 8)."""
    part, p = distance / radius, _STEEP
    fallen = 1 - (p + 1) * (p + 2) / 2 * part**p + p * (p + 2) * part ** (p + 1) - p * (p + 1) / 2 * part ** (p + 2)
    return fallen * (part < 1).to(distance.dtype)


class PonitaConv(Adopting):
    """x [N, V, O, C] at `positions` [N, V, 3] and the `orientations` [O, 3] it was made for, to the same shape.

    `basis` functions of the invariants, products of up to `degree` of them, through `hidden` features (as many as
    `basis` unless told) make the kernels. `radius` None is no window. It loads the names of both of the authors'
    repositories; what their network keeps beside its layers belongs to each here. `degree` d of ebekkers/ponita-torch
    is d + 1 here, as it is in ebekkers/ponita. Weights of a training that has begun are as it rescaled them.
    """

    orientations: Tensor

    def __init__(
        self,
        orientations: Tensor,
        channels: int,
        basis: int,
        *,
        degree: int = 3,
        radius: float | None = 5.0,
        hidden: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.register_buffer("orientations", orientations)
        inside = basis if hidden is None else hidden
        self.basis_fn = _basis(sum(2**power for power in range(1, degree + 1)), inside, basis)
        self.fiber_basis_fn = _basis(degree, inside, basis)
        self.kernel_spatial = nn.Linear(basis, channels, bias=False)
        self.kernel_spherical = nn.Linear(basis, channels, bias=False)
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        self.degree, self.radius = degree, radius

    def own(self, state: State) -> State:
        """Orientations, which theirs does not hold, are those that the layer was made for."""
        self._compare(state)
        found = renamed(state, _NAMES)
        theirs = "basis_fn.1.weight" in state and not self.orientations.is_meta
        return {"orientations": self.orientations} | found if theirs else found

    def _compare(self, state: State) -> None:
        """Raises ValueError where the state's window is not the layer's."""
        radius, steep = (state.get(f"windowing_fn.{name}") for name in ("r_max", "p"))
        if radius is not None and (self.radius is None or abs(float(radius) / self.radius - 1) > 1e-6):  # noqa: PLR2004 - float32
            raise ValueError(f"its window's radius is {float(radius):g}, not {self.radius}: give radius")
        if steep is not None and float(steep) != _STEEP:
            raise ValueError(f"its window falls with p {float(steep):g}, not {_STEEP}")

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        apart = positions.unsqueeze(1) - positions.unsqueeze(2)
        along = apart @ self.orientations.T
        across = (apart.unsqueeze(-2) - along.unsqueeze(-1) * self.orientations).norm(dim=-1)
        basis = self.basis_fn(polynomials(torch.stack((along, across), -1), self.degree))
        if self.radius is not None:
            basis = basis * near(apart.norm(dim=-1), self.radius)[..., None, None]
        spatial = self.kernel_spatial(basis)
        gathered = (spatial * x.unsqueeze(1)).sum(2)
        mixed = (gathered.unsqueeze(3) * self._spherical()).sum(2)
        made: Tensor = mixed / self.orientations.shape[0]
        return made if self.bias is None else made + self.bias

    def _spherical(self) -> Tensor:
        """The kernel between orientations: [O, O, C]."""
        between = (self.orientations @ self.orientations.T).unsqueeze(-1)
        found: Tensor = self.kernel_spherical(self.fiber_basis_fn(polynomials(between, self.degree)))
        return found


def _basis(read: int, hidden: int, made: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(read, hidden), nn.GELU(), nn.Linear(hidden, made), nn.GELU())


class PonitaBlock(Adopting):
    """As PonitaConv takes it, with its `degree`, `radius` and `hidden`: a convolution, and two linear layers over
    channels beside x. `layer_scale` weighs them at first; None is no such parameter.
    """

    def __init__(
        self,
        orientations: Tensor,
        channels: int,
        basis: int,
        *,
        widening_factor: int = 4,
        degree: int = 3,
        radius: float | None = 5.0,
        hidden: int | None = None,
        layer_scale: float | None = 1e-6,
    ) -> None:
        super().__init__()
        self.conv = PonitaConv(orientations, channels, basis, degree=degree, radius=radius, hidden=hidden)
        self.norm = nn.LayerNorm(channels)
        self.linear_1 = nn.Linear(channels, widening_factor * channels)
        self.linear_2 = nn.Linear(widening_factor * channels, channels)
        self.layer_scale = None if layer_scale is None else nn.Parameter(torch.full((channels,), layer_scale))

    def own(self, state: State) -> State:
        """What stands beside the authors' block is its convolution's."""
        return renamed(state, {_BESIDE: r"conv.\1"})

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        made: Tensor = self.linear_2(F.gelu(self.linear_1(self.norm(self.conv(x, positions)))))
        return x + (made if self.layer_scale is None else self.layer_scale * made)


def _examples() -> Iterator[Example]:
    """A convolution alone and blocks, with and without what they may lack, clouds of different sizes."""
    orientations = F.normalize(torch.randn(6, 3), dim=-1)
    yield Example(PonitaConv(orientations, 4, 5), {"x": (5, 6, 4), "positions": (5, 3)})
    block = PonitaBlock(orientations[:4], 8, 6, layer_scale=0.7)
    yield Example(block, {"x": (7, 4, 8), "positions": (7, 3)})
    conv = PonitaConv(orientations[:5], 4, 3, degree=2, radius=None, hidden=7, bias=False)
    yield Example(conv, {"x": (4, 5, 4), "positions": (4, 3)})
    block = PonitaBlock(orientations[:3], 4, 5, widening_factor=2, degree=2, radius=2.0, hidden=4, layer_scale=None)
    yield Example(block, {"x": (6, 3, 4), "positions": (6, 3)})


_PLACES = "it is computed of positions, whose steps are finer than eight bits"
PART = Conv(
    paper="PONITA: Fast, Expressive SE(n) Equivariant Networks (ICLR 2024)",
    tier="T3",
    layers=(PonitaConv, PonitaBlock),
    examples=_examples,
    usual=lambda: Example(
        PonitaBlock(F.normalize(torch.randn(20, 3), dim=-1), 16, 16), {"x": (16, 20, 16), "positions": (16, 3)}
    ),
    kept={
        "basis_fn.*": _PLACES,
        "Pow": _PLACES,
        "LayerNormalization": "it scales every channel: its error is the whole map's",
    },
)
