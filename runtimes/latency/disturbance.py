"""The Disturbance: how far others on the machine were in the way of a measurement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STEADY = 0.05
"""Relative spread between rounds up to which a measurement counts as undisturbed."""
_CALM = 0.15
"""Share of the processor's time that others may take on a calm machine."""
_LOOK = 0.3
"""Seconds of looking at what others do."""
_NORMAL = 1.4826
"""Standard deviations in a median absolute deviation of normal numbers."""


@dataclass(frozen=True, slots=True)
class Disturbance:
    """`busy`: share of the processor's time that others took just before; `spread`: relative standard deviation between
    rounds, of the build where it was largest.
    """

    busy: float = 0.0
    spread: float = 0.0

    @property
    def marked(self) -> bool:
        """Whether what was measured is to be measured again when the machine is calm."""
        return self.spread > STEADY


def busy() -> float:
    """Share of the processor's time that others take while this process sleeps."""
    import psutil

    return float(psutil.cpu_percent(interval=_LOOK)) / 100


def calm() -> bool:
    """Whether hardly anybody else uses the machine now."""
    return busy() <= _CALM


def spread(ratios: Sequence[float]) -> float:
    """Relative standard deviation of rounds by their median absolute deviation, which one slow moment does not move."""
    middle = float(np.median(ratios))
    return _NORMAL * float(np.median(np.abs(np.array(ratios) - middle))) / middle if middle else math.inf
