"""Gaunt tensor product: two spherical functions multiplied, all of them given by their harmonics.

Luo et al., Enabling Efficient Equivariant Operations in the Fourier Basis via Gaunt Tensor Products, ICLR 2024. Where
the paper goes through the Fourier basis, this goes through values on a grid that integrates the product exactly: three
constant matrices, no complex numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from convkit.compress.conv import Conv, Example


def harmonics(degree: int, theta: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Real orthonormal spherical harmonics [(degree + 1)², points], float64, l by l and m from -l to l; `theta` is the
    polar angle.
    """
    from scipy.special import sph_harm_y

    found = []
    for order in range(degree + 1):
        for m in range(-order, order + 1):
            value = sph_harm_y(order, abs(m), theta, phi)
            part = value.real if m >= 0 else value.imag
            found.append(part * (np.sqrt(2) * (-1) ** m if m else 1.0))
    return np.stack(found)


def grid(degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Polar angles, azimuths and weights that integrate functions of up to `degree` over the sphere exactly:
    Gauss-Legendre along the axis, even steps around it.
    """
    nodes, weights = np.polynomial.legendre.leggauss(degree // 2 + 1)
    around = 2 * np.pi * np.arange(degree + 1) / (degree + 1)
    theta, phi = np.meshgrid(np.arccos(nodes), around, indexing="ij")
    area = np.repeat(weights[:, None] * (2 * np.pi / (degree + 1)), degree + 1, axis=1)
    return theta.ravel(), phi.ravel(), area.ravel()


class GauntTensorProduct(nn.Module):
    """a […, (first + 1)²] and b […, (second + 1)²], harmonics of degrees up to these, to those of their product up to
    degree `out` […, (out + 1)²]. Paths of odd l1 + l2 + l3, which a Clebsch-Gordan product has, are none of it.
    """

    first: Tensor
    second: Tensor
    out: Tensor

    def __init__(self, first: int, second: int, out: int) -> None:
        super().__init__()
        if min(first, second, out) < 0:
            raise ValueError(f"degrees of harmonics begin at 0, not {min(first, second, out)}")
        theta, phi, area = grid(first + second + out)
        for name, degree, weight in (("first", first, 1.0), ("second", second, 1.0), ("out", out, area)):
            values = torch.from_numpy(harmonics(degree, theta, phi) * weight).float()
            self.register_buffer(name, values.t().contiguous() if name == "out" else values, persistent=False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        for given, known in ((a, self.first), (b, self.second)):
            if given.shape[-1] != len(known):
                raise ValueError(f"a function of these degrees has {len(known)} harmonics, not {given.shape[-1]}")
        return ((a @ self.first) * (b @ self.second)) @ self.out


def _examples() -> Iterator[Example]:
    """Like and unlike degrees; all of the product, and its beginning."""
    for first, second, out in ((3, 3, 3), (2, 1, 3), (4, 2, 0)):
        shapes = {"a": (5, (first + 1) ** 2), "b": (5, (second + 1) ** 2)}
        yield Example(GauntTensorProduct(first, second, out), shapes)


PART = Conv(
    paper="Gaunt Tensor Products (ICLR 2024)",
    tier="T1",
    layers=(GauntTensorProduct,),
    examples=_examples,
    usual=lambda: Example(GauntTensorProduct(3, 3, 3), {"a": (512, 16), "b": (512, 16)}),
)
