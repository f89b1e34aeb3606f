"""This machine: targets as they are on its processor, and its engine where no sum of products saturates."""

import onnxruntime

from convkit.compress import target as targets
from convkit.compress.target import Target
from convkit.runtimes.bench import machine


def target(name: str) -> Target:
    return targets.load(name).on(machine.flags())


def exact() -> onnxruntime.SessionOptions:
    """ONNX Runtime with kernels that add in 32 bits on every processor; without VNNI they are not its usual ones."""
    settings = onnxruntime.SessionOptions()
    settings.add_session_config_entry("session.x64quantprecision", "1")
    settings.log_severity_level = 3
    return settings
