"""Where a candidate runs: in a process of its own, asleep on its pipe until it is its turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from convkit.runtimes.bench.block import Block, BlockPlan, time_block
from convkit.runtimes.session import NodeTime, Session
from convkit.runtimes.session.isolated import IsolatedSession
from convkit.runtimes.session.nvml import Reading

if TYPE_CHECKING:
    from convkit.compress.model import TensorSpec
    from convkit.runtimes.bench.candidate import Candidate
    from convkit.runtimes.bench.clock import Clock

Inputs = Mapping[str, np.ndarray]


class Worker(Protocol):
    """One candidate, opened."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the model takes."""

    @property
    def load_seconds(self) -> float:
        """From the file to a session that is ready to run."""

    def prepare(self, samples: Sequence[Inputs]) -> None:
        """Take the inputs that blocks run on, in turn."""

    def time(self, plan: BlockPlan) -> Block:
        """Run one block."""

    def run(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """The outputs, for metrics."""

    def profile(self, inputs: Inputs, repeats: int) -> list[NodeTime]:
        """Time per node that the engine executes."""

    def memory(self) -> int:
        """Peak resident bytes so far, engine and interpreter included."""

    def close(self) -> None:
        """End it."""


class ProcessWorker:
    """A worker whose engine has a process to itself."""

    def __init__(self, candidate: Candidate) -> None:
        self._session = IsolatedSession(candidate.engine, candidate.path, candidate.options)
        self.inputs, self.load_seconds = self._session.inputs, self._session.load_seconds
        self.pid = self._session.process.pid

    def prepare(self, samples: Sequence[Inputs]) -> None:
        stacked = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
        self._session.process.ask("prepare", {}, stacked)

    def time(self, plan: BlockPlan) -> Block:
        reply, arrays = self._session.process.ask("time", {"plan": dataclasses.asdict(plan)})
        return Block(arrays["seconds"], reply["warm_up"], reply["steady"], _gpu(reply["gpu"]), others=reply["others"])

    def run(self, inputs: Inputs) -> dict[str, np.ndarray]:
        return self._session.run(inputs)

    def profile(self, inputs: Inputs, repeats: int) -> list[NodeTime]:
        return self._session.profile(inputs, repeats)

    def memory(self) -> int:
        return int(self._session.process.ask("memory")[0]["bytes"])

    def close(self) -> None:
        self._session.close()


def _gpu(fields: Mapping[str, Any] | None) -> Reading | None:
    return Reading(**{**fields, "held_by": tuple(fields["held_by"])}) if fields else None


@dataclass(slots=True)
class InlineWorker:
    """A worker in this process, on any clock: with a virtual one a whole bench is simulated in milliseconds."""

    session: Session
    clock: Clock
    samples: Sequence[Inputs] = ()
    load_seconds: float = 0.0

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.session.inputs

    def prepare(self, samples: Sequence[Inputs]) -> None:
        self.samples = samples

    def time(self, plan: BlockPlan) -> Block:
        return time_block(self.session, self.samples, self.clock, plan)

    def run(self, inputs: Inputs) -> dict[str, np.ndarray]:
        return self.session.run(inputs)

    def profile(self, inputs: Inputs, repeats: int) -> list[NodeTime]:
        return self.session.profile(inputs, repeats)

    def memory(self) -> int:
        return 0

    def close(self) -> None:
        self.session.close()
