"""Floating-point formats: scaled grids of a sign, exponent and mantissa bits, and types that are only cast to."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convkit.compress.errors import ConvkitError
from convkit.compress.format import Format, positive

if TYPE_CHECKING:
    from torch import Tensor

_NAME = re.compile(r"e(\d+)m(\d+)")
_LARGEST_EXPONENT, _LARGEST_MANTISSA = 7, 10
"""Bits up to which every value of the grid, and what lies between two of them, is a float32."""
_CARRIERS = ("float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "float32")


@dataclass(frozen=True, slots=True)
class Floating(Format):
    """Sign, exponent and mantissa bits at a real-valued scale: real = value * scale, values up to `largest`.

    Subnormals are kept, what lies beyond saturates, and the bias is 2^(exponent-1) - 1: any other bias, whole or not,
    is another scale (Q_b(x) = s Q_b0(x / s)).
    """

    exponent: int
    mantissa: int
    largest: float

    @property
    def symmetric(self) -> bool:
        return True

    @property
    def ranged(self) -> bool:
        return True

    @property
    def native(self) -> bool:
        import torch

        info = torch.finfo(self.dtype())
        same = (self.largest, 2.0**-self.mantissa, self.least) == (info.max, info.eps, info.smallest_normal)
        return same and info.bits == 8  # noqa: PLR2004 - QuantizeLinear knows no longer ones

    @property
    def least(self) -> float:
        """The smallest normal value."""
        return float(2.0 ** (2 - 2 ** (self.exponent - 1)))

    def fractions(self) -> Tensor:
        """Also beyond the largest magnitude, where it may meet a value of the grid."""
        import torch

        return torch.linspace(0.1, 1.2, 111)

    def parameters(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The scale at which `largest` is the larger of the two magnitudes; zero point 0."""
        import torch

        scale = positive(torch.maximum(-low.float(), high.float()).clamp(min=0) / self.largest)
        return scale, torch.zeros_like(scale)

    def fake(self, x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        return self.values(x / scale) * scale

    def codes(self, x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        return self.values(x / scale).to(self.dtype())

    def magnitudes(self) -> Tensor:
        """Every number without sign at scale 1, in the order of the codes, float32 [N]."""
        import torch

        codes = torch.arange(2 ** (self.exponent + self.mantissa))
        binade, fraction = codes >> self.mantissa, (codes & (2**self.mantissa - 1)) * 2.0**-self.mantissa
        found = torch.where(binade > 0, (1 + fraction) * 2.0 ** (binade.clamp(min=1) - 1), fraction) * self.least
        return found[found <= self.largest]

    def values(self, y: Tensor) -> Tensor:
        """`y` at scale 1 on the grid: a multiple of 2^-mantissa of its binade, or of the subnormals'."""
        import torch

        y = y.clamp(-self.largest, self.largest)
        step = _binade(y).clamp(min=self.least) * 2.0**-self.mantissa
        return torch.round(y / step) * step


def _binade(y: Tensor) -> Tensor:
    """2^floor(log2 |y|) to the last bit: what is left of a float without sign and mantissa; 0 for subnormals."""
    import torch

    if y.dtype == torch.float64:
        return (y.view(torch.int64) & 0x7FF0_0000_0000_0000).view(torch.float64)
    return (y.float().view(torch.int32) & 0x7F80_0000).view(torch.float32).to(y.dtype)


@dataclass(frozen=True, slots=True)
class Plain(Format):
    """A type that numbers are cast to, without a scale: its own range is wide enough."""

    @property
    def symmetric(self) -> bool:
        return True

    @property
    def ranged(self) -> bool:
        return False

    @property
    def native(self) -> bool:
        return False

    @property
    def exact(self) -> bool:
        return self.storage == "float32"

    def fractions(self) -> Tensor:
        import torch

        return torch.ones(1)

    def parameters(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        scale = torch.ones_like(torch.maximum(low, high), dtype=torch.float32)
        return scale, torch.zeros_like(scale)

    def fake(self, x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """`x` as the type has it, ties to even; beyond its largest number it is infinite, as IEEE 754 has it."""
        return self.codes(x, scale, zero).to(x.dtype)

    def codes(self, x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        return x.to(self.dtype())


def ExMy(x: Tensor, scale: Tensor, *, exponent: int, mantissa: int, largest: float) -> Tensor:  # noqa: N802
    """`x` in the numbers of a format, as an operator of a graph: ONNX has none for types that it lacks."""
    return Floating("", 1 + exponent + mantissa, "float32", exponent, mantissa, largest).fake(x, scale, scale)


def parse(name: str) -> Floating | None:
    """The format that a name such as e3m4 describes; None where it describes none. Raises ConvkitError for too many
    or too few bits.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    exponent, mantissa = int(match[1]), int(match[2])
    if not (1 <= exponent <= _LARGEST_EXPONENT and 1 <= mantissa <= _LARGEST_MANTISSA):
        hint = f"1 to {_LARGEST_EXPONENT} exponent bits and 1 to {_LARGEST_MANTISSA} mantissa bits, such as e3m4"
        raise ConvkitError(f"no format is called {name!r}", hint=hint)
    return every_code(exponent, mantissa)


@functools.cache
def every_code(exponent: int, mantissa: int) -> Floating:
    """The format in which all codes are numbers: none is kept for infinity or NaN."""
    largest = (2 - 2.0**-mantissa) * 2.0 ** (2 ** (exponent - 1))
    about = (
        f"float with {exponent} exponent and {mantissa} mantissa bits, no infinity or NaN, for search and simulation"
    )
    return Floating(about, 1 + exponent + mantissa, _carrier(exponent, mantissa, largest), exponent, mantissa, largest)


def _carrier(exponent: int, mantissa: int, largest: float) -> str:
    """The smallest type that has every value of the grid."""
    import torch

    finest = 2.0 ** (2 - 2 ** (exponent - 1) - mantissa)
    for name in _CARRIERS:
        info = torch.finfo(getattr(torch, name))
        if 2.0**-mantissa >= info.eps and info.smallest_normal * info.eps <= finest and largest <= info.max:
            return name
    raise AssertionError(exponent, mantissa)
