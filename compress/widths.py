"""Widths: how many of a float format's bits its mantissa has, chosen by what a tensor loses.

Every split of the bits is tried with the range that suits it best (of those in `Floating.fractions`); each channel
votes for the one in which it errs least, and most votes win (Kuzmin et al. 2022).
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from convkit.compress import format as formats
from convkit.compress import weights

_NAME = re.compile(r"fp([3-8])")


def bits(name: str) -> int | None:
    """Bits of the floats that `name`, such as fp6, leaves to be split; None where it names none."""
    match = _NAME.fullmatch(name)
    return None if match is None else int(match[1])


def splits(bits: int) -> list[str]:
    """The formats of `bits` bits: a sign, at least one exponent and one mantissa bit."""
    return [f"e{bits - 1 - mantissa}m{mantissa}" for mantissa in range(bits - 2, 0, -1)]


def of_weight(weight: Tensor, bits: int) -> str:
    """The format that most channels (axis 0) of `weight` err least in; of equals the one with the longer mantissa."""
    names, rows = splits(bits), weight.flatten(1)
    rounded = (weights.rounded(weight, formats.load(name), "mse") for name in names)
    errors = torch.stack([(one.flatten(1) - rows).square().sum(1) for one in rounded])
    votes = torch.bincount(errors.argmin(0), minlength=len(names))
    return names[int(votes.argmax())]
