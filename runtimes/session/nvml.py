"""What a GPU says of itself while it computes, through NVML: clocks, temperature, and what holds the clocks down."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_MOVED = 0.02
"""Relative difference of clocks below which they have settled."""
_WATTS = 1e-3


@dataclass(frozen=True, slots=True)
class Reading:
    """`clock`, `memory_clock`: MHz of the multiprocessors and of the memory. `temperature`: °C. `power`: W.

    `held_by`: what keeps the clocks below what they could be ("thermal slowdown"); idleness and clocks that were set on
    purpose are no such thing.
    """

    clock: int
    memory_clock: int
    temperature: int
    power: float
    held_by: tuple[str, ...] = ()


def read(uuid: str) -> Reading | None:
    """Of the GPU with this UUID; None where NVML or its Python package is missing, or the GPU does not tell all."""
    nvml = _nvml()
    if nvml is None:
        return None
    try:
        device = _device(nvml, uuid)
        reasons = int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(device))
        return Reading(
            clock=int(nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_SM)),
            memory_clock=int(nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_MEM)),
            temperature=int(nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU)),
            power=nvml.nvmlDeviceGetPowerUsage(device) * _WATTS,
            held_by=held_by(reasons),
        )
    except nvml.NVMLError:
        return None


def facts() -> dict[str, Any] | None:
    """The name of the first GPU that programs see, its memory (bytes), driver and largest clock (MHz), None for what it
    does not tell; None where there is no GPU, or no NVML."""
    nvml = _nvml()
    device = None if nvml is None else _told(nvml, lambda: _first(nvml))
    if nvml is None or device is None:
        return None
    asked: dict[str, Callable[[], Any]] = {
        "name": lambda: nvml.nvmlDeviceGetName(device),
        "memory": lambda: int(nvml.nvmlDeviceGetMemoryInfo(device).total),
        "driver": nvml.nvmlSystemGetDriverVersion,
        "largest_clock": lambda: int(nvml.nvmlDeviceGetMaxClockInfo(device, nvml.NVML_CLOCK_SM)),
    }
    return {name: _told(nvml, ask) for name, ask in asked.items()}


def _first(nvml: Any) -> Any:  # noqa: ANN401 - the package has no types
    """The first of CUDA_VISIBLE_DEVICES, which NVML does not heed; None where that hides all."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip()
    if first.startswith("MIG-"):
        return nvml.nvmlDeviceGetHandleByUUID(first)
    if first.startswith("GPU-"):
        known = map(nvml.nvmlDeviceGetHandleByIndex, range(nvml.nvmlDeviceGetCount()))  # its name may be cut short
        return next((one for one in known if nvml.nvmlDeviceGetUUID(one).startswith(first)), None)
    return nvml.nvmlDeviceGetHandleByIndex(int(first)) if first.isdigit() else None


def _told(nvml: Any, ask: Callable[[], Any]) -> Any:  # noqa: ANN401 - the package has no types
    """What a query gives; None where the GPU has no answer, such as one that shares the processor's memory."""
    try:
        return ask()
    except nvml.NVMLError:
        return None


def held_by(reasons: int) -> tuple[str, ...]:
    """The names of the bits in NVML's mask that stand for clocks held down."""
    return tuple(name for bit, name in _HELD.items() if reasons & bit)


def settled(before: Reading | None, after: Reading | None) -> bool:
    """Whether the clocks stand still; where nobody can tell, they are taken to."""
    return before is None or after is None or abs(after.clock - before.clock) <= _MOVED * max(before.clock, 1)


# nvml.h, nvmlClocksEventReasons: constants that the package names differently from version to version.
_HELD = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}


def _nvml() -> Any:  # noqa: ANN401 - the package has no types
    """The package, initialized; None where it is missing or finds no driver."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _device(nvml: Any, uuid: str) -> Any:  # noqa: ANN401 - the package has no types
    return nvml.nvmlDeviceGetHandleByUUID(uuid)
