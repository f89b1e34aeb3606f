"""The Work of a search: full evaluations, builds for the engine, and seconds, stage by stage."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convkit.compress.model import Model
    from convkit.compress.search.remedies import Task


@dataclass(frozen=True, slots=True)
class Work:
    """What this run did; what an earlier one left is not counted.

    An evaluation is the simulated network run on all held-back data, a glance on some of it, a build a file made for
    the engine, a pair one (layer, option) measured by simulation on a few samples.
    """

    counts: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the seconds of the block for the stage `name`."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

    def counting(self, task: Task, name: str = "evaluations") -> Task:
        """`task`, its evaluations counted as `name`."""

        def score(model: Model) -> Mapping[str, float]:
            self.counts[name] += 1
            return task.score(model)

        return replace(task, score=score)

    def as_dict(self) -> dict[str, Any]:
        """JSON of it; seconds to the hundredth."""
        counts = {name: self.counts[name] for name in ("evaluations", "glances", "builds", "pairs")}
        return {**counts, "seconds": {name: round(seconds, 2) for name, seconds in self.seconds.items()}}
