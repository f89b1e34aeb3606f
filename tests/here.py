"""This machine: the engines it has, targets as they are on its processor, and its engine where no sum saturates."""

import functools

import onnxruntime

from convkit.compress import parts
from convkit.compress import target as targets
from convkit.compress.errors import NotAvailableError
from convkit.compress.target import Target
from convkit.runtimes.bench import machine


def target(name: str) -> Target:
    return targets.load(name).on(machine.flags())


@functools.cache
def engines() -> tuple[str, ...]:
    """The engines that compute, and are at hand."""
    return tuple(name for name in parts.names("runtimes") if name != "null" and _works(name))


def _works(name: str) -> bool:
    try:
        parts.load("runtimes", name).version()
    except NotAvailableError:
        return False
    return True


def exact() -> onnxruntime.SessionOptions:
    """ONNX Runtime with kernels that add in 32 bits on every processor; without VNNI they are not its usual ones."""
    settings = onnxruntime.SessionOptions()
    settings.add_session_config_entry("session.x64quantprecision", "1")
    settings.log_severity_level = 3
    return settings
