"""A number format: what codes it has and what real numbers they stand for. Parts in `compress/formats`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convkit.compress import parts

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_SCALE_BYTES = 4
"""A scale is stored in float32."""


@dataclass(frozen=True, slots=True)
class Format(ABC):
    """Codes of `bits` bits, held in the type `storage` (numpy's name), that stand for real numbers at some scale."""

    about: str
    bits: int
    storage: str

    @property
    @abstractmethod
    def symmetric(self) -> bool:
        """Whether the zero point is always 0."""

    @property
    @abstractmethod
    def ranged(self) -> bool:
        """Whether a scale is to be chosen; what is only cast has none."""

    @property
    @abstractmethod
    def native(self) -> bool:
        """Whether QuantizeLinear to `storage` rounds and saturates as the format does."""

    @property
    def exact(self) -> bool:
        """Whether it changes no float32."""
        return False

    @abstractmethod
    def fractions(self) -> Tensor:
        """Fractions of a tensor's largest magnitude that are worth trying as its range, [N] in ascending order."""

    @abstractmethod
    def parameters(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Scale (float32, > 0) and zero point (as float32) that cover [low, high], zero included exactly."""

    @abstractmethod
    def fake(self, x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """`x` rounded to the nearest representable number (ties to even), saturating at both ends."""

    @abstractmethod
    def codes(self, x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """What is stored for `x`, in the type `dtype()`."""

    def dtype(self) -> torch.dtype:
        """torch's type of the stored codes."""
        import torch

        found: torch.dtype = getattr(torch, self.storage)
        return found

    @property
    def filed_bits(self) -> int:
        """Bits that a number takes in a file. Seven are not packed: what unpacks them takes time and memory whenever
        the file is opened, and saves an eighth."""
        return 8 if self.bits == 7 else self.bits  # noqa: PLR2004 - a byte, and one bit less

    def filed_bytes(self, numbers: int, scales: int = 0, *, packed: bool = True) -> int:
        """Bytes of that many numbers, `packed` without gaps or each in its type, and their scales."""
        bits = self.filed_bits if packed else self.dtype().itemsize * 8
        return -(-numbers * bits // 8) + (scales * _SCALE_BYTES if self.ranged else 0)


@dataclass(frozen=True, slots=True)
class Integer(Format):
    """An affine integer format: real = (code - zero point) * scale, codes in [low, high].

    Fewer bits than its storage has are codes of a narrower range: exactly what an 8-bit kernel computes with. Signed
    formats are symmetric, with -2^(bits-1) as a code: a zero point in weights costs every engine time.
    """

    low: int
    high: int

    @property
    def symmetric(self) -> bool:
        return self.low < 0

    @property
    def ranged(self) -> bool:
        return True

    @property
    def native(self) -> bool:
        import torch

        info = torch.iinfo(self.dtype())
        return (self.low, self.high) == (info.min, info.max)

    def fractions(self) -> Tensor:
        """The fewer the codes, the more it pays to clip."""
        import torch

        return torch.linspace(0.6, 1.0, 17) if self.bits >= 8 else torch.linspace(0.2, 1.0, 41)  # noqa: PLR2004

    def parameters(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Scale (float32, > 0) and zero point (integer, as float32) that cover [low, high], zero included exactly.

        Zero must be a code because convolutions pad with it.
        """
        import torch

        low, high = low.float().clamp(max=0), high.float().clamp(min=0)
        if self.symmetric:
            scale = torch.maximum(-low / -self.low, high / self.high)
            return positive(scale), torch.zeros_like(scale)
        levels = self.high - self.low
        scale = positive(high / levels - low / levels)
        return scale, (self.low - torch.round(low / scale)).clamp(self.low, self.high)

    def fake(self, x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """`x` rounded to the nearest representable number (ties to even), saturating at both ends."""
        return (self._rounded(x, scale, zero) - zero) * scale

    def codes(self, x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        return self._rounded(x, scale, zero).to(self.dtype())

    def nearest(self, steps: Tensor) -> Tensor:
        """`steps` of the scale as whole ones, ties to even; beyond both ends as well."""
        import torch

        return torch.round(steps)

    def _rounded(self, x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        return (self.nearest(x / scale) + zero).clamp(self.low, self.high)


def signed(bits: int, storage: str) -> Integer:
    """Two's complement integers."""
    half = 2 ** (bits - 1)
    return Integer(f"signed {bits}-bit, symmetric", bits, storage, -half, half - 1)


def unsigned(bits: int, storage: str) -> Integer:
    """Unsigned integers with a zero point."""
    return Integer(f"unsigned {bits}-bit with zero point", bits, storage, 0, 2**bits - 1)


def positive(scale: Tensor) -> Tensor:
    """An all-zero range still needs a scale an engine accepts; 1 represents its zeros exactly."""
    import torch

    return torch.where(scale > torch.finfo(torch.float32).tiny, scale, torch.ones_like(scale))


def load(name: str) -> Format:
    """The format called `name`: one of those in the folder, or any eXmY, such as e3m4."""
    from convkit.compress import floating

    return floating.parse(name) or _part(name)


def is_exact(name: str) -> bool:
    """Whether what is in the format `name` stays as it is in float32."""
    return load(name).exact


def _part(name: str) -> Format:
    found: Format = parts.load("compress/formats", name)
    return found
