"""A network and an engine whose times are known: what a table says of them can be checked exactly."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from convkit.compress.model import TensorSpec
from convkit.compress.plan import LayerPlan
from convkit.runtimes.bench.clock import Clock
from convkit.runtimes.latency import table as tables
from convkit.runtimes.latency.builds import Build
from convkit.runtimes.latency.structure import OUTSIDE, Structure, Tensor
from convkit.runtimes.session import NodeTime

FLOAT, LOW, HALF = "fp32", "uint8", "fp16"


@dataclass(frozen=True, slots=True)
class Truth:
    """A chain of `layers` with one skip, the true seconds of each in each format, and of every change of format."""

    structure: Structure
    layers: Mapping[str, Mapping[str, float]]
    changes: Mapping[str, Mapping[str, float]]
    rest: float = 1e-4

    def seconds(self, formats: Mapping[str, str]) -> float:
        return sum(self.nodes(formats).values())

    def nodes(self, formats: Mapping[str, str]) -> dict[tuple[str, tuple[str, ...]], float]:
        """What the engine executes: the layers' kernels, the changes behind them, and something of its own."""
        found = {("own", ()): self.rest}
        for name, times in self.layers.items():
            found[f"{name}_fused", (name,)] = times[formats.get(name, FLOAT)]
        for tensor in self.structure.tensors:
            for key in tables.changes(tensor, formats, FLOAT):
                found[f"{tensor.name}_{key}", (tensor.name,)] = self.changes[tensor.name][key]
        return found


def truth(count: int = 6, seed: int = 0) -> Truth:
    generator = random.Random(seed)
    names = [f"layer{i}" for i in range(count)]
    readers: dict[str, tuple[str, ...]] = {name: (after,) for name, after in zip(names, [*names[1:], ""], strict=True)}
    readers[names[1]] = (names[2], names[4])
    tensors = [Tensor("x", OUTSIDE, (names[0],), 300)]
    tensors += [Tensor(f"{name}_out", name, read, 1000 * (i + 1)) for i, (name, read) in enumerate(readers.items())]
    owner = {name: name for name in names} | {f"{name}_out": name for name in names} | {"x": OUTSIDE}
    layers = {}
    for name in names:
        slow = generator.uniform(1e-4, 1e-3)
        layers[name] = {FLOAT: slow, LOW: slow * generator.uniform(0.2, 0.9), HALF: slow / 2}
    changes = {
        t.name: {
            f"{FLOAT}>{LOW}": t.elements * 2e-8 + 1e-6,
            f"{LOW}>{FLOAT}": t.elements * 3e-8,
            f"{FLOAT}>{HALF}": t.elements * 1e-8,
            f"{HALF}>{FLOAT}": t.elements * 1e-8,
        }
        for t in tensors
    }
    return Truth(Structure(tuple(names), dict.fromkeys(names, LOW), tuple(tensors), owner), layers, changes)


def builds(known: Truth, folder: Path) -> list[Build]:
    """Float, low, the two mixtures in which all neighbours differ, and all in 16 bits."""
    path = folder / "empty.onnx"
    onnx.save(helper.make_model(helper.make_graph([], "none", [], [])), path)
    names = list(known.layers)
    chosen = {"float": [], "low": names, "even": names[::2], "odd": names[1::2]}
    found = [Build(key, {name: LayerPlan(LOW, "int8") for name in low}, path) for key, low in chosen.items()]
    return [*found, Build(HALF, {name: LayerPlan(HALF, HALF) for name in names}, path, single=True)]


@dataclass(frozen=True, slots=True)
class VirtualSession:
    """Takes what the truth says for its formats, times what `noise` says for that moment of the clock."""

    known: Truth
    formats: Mapping[str, str]
    clock: Clock
    noise: Callable[[float], float] = lambda _moment: 1.0
    overhead: float = 1.0
    inputs: tuple[TensorSpec, ...] = (TensorSpec("x", (1,), "float32", (1,)),)
    outputs: tuple[TensorSpec, ...] = ()
    repeats: list[int] = field(default_factory=list)

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        self.clock.sleep(self.known.seconds(self.formats) * self.noise(self.clock.now()))
        return {}

    def profile(self, inputs: Mapping[str, np.ndarray], repeats: int) -> list[NodeTime]:
        self.repeats.append(repeats)
        self.run(inputs)
        slow = self.overhead * self.noise(self.clock.now())
        found = self.known.nodes(self.formats)
        return [NodeTime(name, "Any", s * slow, "", origins, s * slow) for (name, origins), s in found.items()]

    def close(self) -> None:
        """There is nothing to release."""
