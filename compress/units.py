"""Units in which limits are given, and what a number in one of them means."""

from __future__ import annotations

import math
from collections.abc import Mapping

from convkit.compress.errors import ConvkitError

Units = Mapping[str, float]

SECONDS: Units = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
BYTES: Units = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
BIT_OPERATIONS: Units = {"M": 1e6, "G": 1e9, "T": 1e12}
"""Of multiply-accumulates times bits of the weight times bits of the activation."""

RATIO = "x"
NUMBER = r"(?P<sign>[+-]?)(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)\s*(?P<unit>[A-Za-z]+|/s|%)?"
"""Pattern of a number and its unit, in groups `sign`, `number` and `unit`."""


def limit(text: str, quantity: str, units: Units, number: float, unit: str, *, over: str) -> tuple[float, bool]:
    """What `number` of `unit` is as a limit of `quantity`, and whether it is a ratio to `over`.

    Raises ConvkitError about `text`, what the user wrote, for a unit that is none of `units`.
    """
    if not math.isfinite(number):
        raise ConvkitError(f"{text} has a limit beyond all numbers", hint=f"{quantity} takes a finite one")
    if unit == RATIO:
        return number, True
    if unit not in units:
        have = f"unit {unit!r}" if unit else "no unit"
        hint = f"{quantity} is given in {RATIO} (ratio to {over}), {', '.join(units)}"
        raise ConvkitError(f"{text} has {have}", hint=hint)
    return number * units[unit], False
