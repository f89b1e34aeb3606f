"""Weights of fewer bits that are those of the largest width, shifted: one stored network runs at every width.

Huang et al., Nearly Lossless Adaptive Bit Switching (Double Rounding): codes of h bits are W_h = round(W / s_h), those
of l bits W_l = round(W_h / 2^Δ) with Δ = h - l, at the scale s_h · 2^Δ. Ties of the second rounding go up, everywhere:
(W_h + 2^(Δ-1)) >> Δ in integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from convkit.compress.format import Integer, signed
from convkit.compress.training.rounded import Scale, Times, Weight


@dataclass(frozen=True, slots=True)
class Shifted(Integer):
    """A signed format whose codes are those of `wide` bits, shifted."""

    wide: int = 8

    def nearest(self, steps: Tensor) -> Tensor:
        """Rounded twice, to wide codes and from these: ties to even, then up."""
        factor, half = 2.0 ** (self.wide - self.bits), 2 ** (self.wide - 1)
        codes = torch.round(steps * factor).clamp(-half, half - 1)
        return torch.floor((codes + factor / 2) / factor) if factor > 1 else codes


def shifted(bits: int, wide: int, storage: str) -> Shifted:
    """The format of `bits` that is `wide` bits shifted."""
    own = signed(bits, storage)
    return Shifted(f"{own.about}, shifted from {wide} bits", bits, storage, own.low, own.high, wide)


def shift(codes: np.ndarray, by: int, low: int, high: int) -> np.ndarray:
    """Signed integer `codes` with `by` bits fewer, ties up, within [low, high]."""
    wide = codes.astype(np.int32)
    found: np.ndarray = np.clip((wide + (1 << by >> 1)) >> by, low, high).astype(codes.dtype)
    return found


def share(narrow: Weight, wide: Weight) -> None:
    """Let a weight be `wide` shifted to its own bits; of as many bits it is that itself."""
    assert isinstance(wide.number, Integer)  # widths are of integers  # noqa: S101
    bits, most = narrow.number.bits, wide.number.bits
    narrow.weight = wide.weight
    assert isinstance(wide.scale, Scale)  # nobody is wider  # noqa: S101
    if bits == most:
        narrow.scale = wide.scale
        return
    narrow.number = shifted(bits, most, narrow.number.storage)
    narrow.scale = Times(wide.scale, 2.0 ** (most - bits))
