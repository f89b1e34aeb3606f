"""What a GPU was like while a candidate ran on it: a time without its clocks says little."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from convkit.runtimes.session.nvml import Reading

_MOVED = 0.05
"""Relative range of the clocks from which on times are those of a GPU that was several GPUs."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """Over all blocks of a candidate: least, median and largest of `clock` and `memory_clock` (MHz), `temperature` (°C)
    and `power` (W), and the share of blocks in which something held the clocks down, by what it was."""

    clock: tuple[float, float, float]
    memory_clock: tuple[float, float, float]
    temperature: tuple[float, float, float]
    power: tuple[float, float, float]
    held_by: dict[str, float]


def conditions(readings: Sequence[Reading | None]) -> Conditions | None:
    """Of the readings after each block; None where there are none."""
    found = [reading for reading in readings if reading is not None]
    if not found:
        return None
    held = Counter(reason for reading in found for reason in reading.held_by)
    return Conditions(
        clock=_range([reading.clock for reading in found]),
        memory_clock=_range([reading.memory_clock for reading in found]),
        temperature=_range([reading.temperature for reading in found]),
        power=_range([reading.power for reading in found]),
        held_by={reason: count / len(found) for reason, count in sorted(held.items())},
    )


def warnings(found: Conditions) -> Iterator[str]:
    """What makes times on such a GPU less sure than they look."""
    least, median, most = found.clock
    if most - least > _MOVED * median:
        yield f"the GPU's clock moved between {least:.0f} and {most:.0f} MHz"
    for reason, share in found.held_by.items():
        yield f"the GPU's clock was held down by its {reason} in {share:.0%} of the blocks"


def _range(values: Sequence[float]) -> tuple[float, float, float]:
    return min(values), statistics.median(values), max(values)
