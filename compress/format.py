"""A number format: what codes it has and what real numbers they stand for. Parts in `compress/formats`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from convkit.compress import parts

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Format:
    """An affine integer format: real = (code - zero point) * scale, codes in [low, high].

    `storage` is numpy's name of the type that holds one code; `symmetric` formats keep their zero point at 0.
    """

    about: str
    bits: int
    low: int
    high: int
    storage: str
    symmetric: bool

    def parameters(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Scale (float32, > 0) and zero point (integer, as float32) that cover [low, high], zero included exactly.

        Zero must be a code because convolutions pad with it.
        """
        import torch

        low, high = low.float().clamp(max=0), high.float().clamp(min=0)
        if self.symmetric:
            scale = torch.maximum(-low / -self.low, high / self.high)
            return _positive(scale), torch.zeros_like(scale)
        levels = self.high - self.low
        scale = _positive(high / levels - low / levels)
        return scale, (self.low - torch.round(low / scale)).clamp(self.low, self.high)

    def fake(self, x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """`x` rounded to the nearest representable number (ties to even), saturating at both ends."""
        import torch

        return ((torch.round(x / scale) + zero).clamp(self.low, self.high) - zero) * scale

    def dtype(self) -> torch.dtype:
        """torch's type of the stored codes."""
        import torch

        found: torch.dtype = getattr(torch, self.storage)
        return found


def _positive(scale: Tensor) -> Tensor:
    """An all-zero range still needs a scale an engine accepts; 1 represents its zeros exactly."""
    import torch

    return torch.where(scale > torch.finfo(torch.float32).tiny, scale, torch.ones_like(scale))


def load(name: str) -> Format:
    """The format called `name`."""
    found: Format = parts.load("compress/formats", name)
    return found
