"""The machine's fingerprint: what a latency depends on besides the model."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convkit.compress import parts
from convkit.compress.errors import ConvkitError
from convkit.runtimes.session import nvml

_TELLING = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)
_OF_THE_MOMENT = ("load", "memory", "python")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def fingerprint() -> dict[str, Any]:
    """CPU, its instruction sets, cores, frequency governor, load, versions and GPU; what cannot be read is null."""
    import psutil

    cpu = _cpu()
    return {
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": psutil.cpu_count(logical=False),
        "threads": psutil.cpu_count(),
        "usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count(),
        "flags": flags(),
        "governor": _GOVERNOR.read_text().strip() if _GOVERNOR.is_file() else None,
        "load": round(psutil.getloadavg()[0], 2),
        "memory": psutil.virtual_memory().total,
        "python": platform.python_version(),
        "gpu": nvml.facts(),
    }


def lasting() -> dict[str, Any]:
    """What of it a latency depends on, and is the same tomorrow."""
    return {name: fact for name, fact in fingerprint().items() if name not in _OF_THE_MOMENT}


def flags() -> list[str]:
    """Instruction sets that decide how fast INT8 and BF16 are, and what INT8 kernels add in, as Linux names them."""
    cpu = _cpu()
    found = set(cpu.get("flags", cpu.get("Features", "")).split())
    return [flag for flag in _TELLING if flag in found]


def engine_versions(engines: set[str]) -> dict[str, str | None]:
    """Version of each engine, null where it is not installed."""
    return {name: _version(name) for name in sorted(engines)}


def peak_memory() -> int:
    """The most resident memory this process ever had, in bytes.

    Linux: VmHWM and not ru_maxrss, which keeps the parent's peak across exec.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _cpu() -> Mapping[str, str]:
    """The first processor of /proc/cpuinfo."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return {}
    first = info.read_text().split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _version(engine: str) -> str | None:
    try:
        return str(parts.load("runtimes", engine).version())
    except ConvkitError:
        return None
