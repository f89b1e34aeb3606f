"""The Criterion of a search: what the loss of a network is, how metrics tell it, and how people read it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convkit.compress.labels import are_targets
from convkit.compress.metric import LIMIT_DB

if TYPE_CHECKING:
    import numpy as np

    from convkit.compress.metric import Better

CLEAN_DB = 60.0
"""Where the float network stands, whose own noise is none."""
_SAME = 0.01
"""Part of the float network's own error by labels that makes no difference."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """A loss by `metric`: noise over signal, or how much more of it a network has than the float one, which may be less
    than nothing.

    `axis` names what is shown of it, in `unit`, `heading` that in a word; `alone` the loss of a single layer.
    """

    name: str
    metric: str
    axis: str
    heading: str
    unit: str
    alone: str
    by_labels: bool = True

    @property
    def better(self) -> Better:
        """Whether what is shown is better the higher it is."""
        return "lower" if self.by_labels else "higher"

    @property
    def upwards(self) -> str:
        """Said of a picture in characters."""
        return f"less {self.heading} upwards" if self.by_labels else f"{self.unit} upwards"

    def loss(self, scores: Mapping[str, float], of_float: Mapping[str, float]) -> float:
        """The loss that metrics tell of a network, given those of the float one."""
        if self.by_labels:
            return scores[self.metric] - of_float[self.metric]
        return float(10 ** (-scores.get(self.metric, LIMIT_DB) / 10))

    def same(self, of_float: Mapping[str, float]) -> float:
        """Difference of two losses that is none, however small they are."""
        return _SAME * of_float[self.metric] if self.by_labels else 0.0

    def shown(self, loss: float) -> float:
        """`loss` as people read it, in `unit`: signal over noise, or as it is."""
        if self.by_labels:
            return loss
        return min(CLEAN_DB, -10 * math.log10(loss)) if loss > 0 else CLEAN_DB

    def words(self, loss: float) -> str:
        """The same with its unit."""
        found = self.shown(loss)
        return f"{found:+.3g} {self.unit}" if self.by_labels else f"{found:.1f} {self.unit}"


DISTANCE = Criterion(
    "distance", "sqnr", "SQNR at the output (dB)", "SQNR", "dB", "loss alone (noise / signal)", by_labels=False
)
CROSS_ENTROPY = Criterion(
    "cross-entropy",
    "cross_entropy",
    "cross-entropy more than float's (nats)",
    "cross-entropy",
    "nats",
    "loss alone (nats more than float's)",
)
SQUARED_ERROR = Criterion(
    "squared error",
    "nmse",
    "squared error more than float's (parts of the signal)",
    "squared error",
    "of signal",
    "loss alone (parts of the signal)",
)
ALL = {one.name: one for one in (DISTANCE, CROSS_ENTROPY, SQUARED_ERROR)}


def of_labels(labels: np.ndarray, output: np.ndarray) -> Criterion:
    """By what `labels` judge an `output`: outputs that are wanted by squared error, classes by cross-entropy."""
    return SQUARED_ERROR if are_targets(labels, output) else CROSS_ENTROPY
