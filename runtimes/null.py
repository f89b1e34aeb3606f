"""A runtime that only takes time: `10ms`, `0.5s`. With it the bench itself is measured."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convkit.compress.errors import ConvkitError
from convkit.compress.model import TensorSpec
from convkit.runtimes.bench.clock import Clock, SystemClock
from convkit.runtimes.session import NodeTime, Options, Runtime
from convkit.runtimes.session.knobs import THREADS, switch

if TYPE_CHECKING:
    import numpy as np

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def _steady(_seconds: float) -> float:
    return 1.0


@dataclass(frozen=True, slots=True)
class NullSession:
    """`run` takes `seconds`, times what `noise` says for that moment of the clock."""

    seconds: float
    clock: Clock
    noise: Callable[[float], float] = _steady
    inputs: tuple[TensorSpec, ...] = (TensorSpec("input", (1,), "float32", (1,)),)
    outputs: tuple[TensorSpec, ...] = (TensorSpec("output", (1,), "float32", (1,)),)

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        self.clock.sleep(self.seconds * self.noise(self.clock.now()))
        return dict.fromkeys(outputs or ("output",), inputs["input"])

    def profile(self, inputs: Mapping[str, np.ndarray], repeats: int) -> list[NodeTime]:
        for _ in range(repeats):
            self.run(inputs)
        return [NodeTime("wait", "Null", self.seconds, "float32", quick=self.seconds)]

    def close(self) -> None:
        """There is nothing to release."""


def _open(path: str, _options: Options) -> NullSession:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(us|ms|s)", path)
    if found is None:
        raise ConvkitError(f"{path!r} is no time that null can take", hint="write it like null:10ms")
    return NullSession(float(found[1]) * _UNITS[found[2]], SystemClock())


PART = Runtime(
    version=lambda: "1",
    open=_open,
    knobs=(THREADS, switch("spinning", "heeded by nobody")),
)
