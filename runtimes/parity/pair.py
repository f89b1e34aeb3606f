"""The Pair: the two networks that are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from convkit.compress import simulate
from convkit.compress.model import Model


@dataclass(frozen=True, slots=True)
class Pair:
    """The network that is simulated, and the file with its own Model that engines run.

    `lowered` simulates their float precision, where that is not float32, on a simulated candidate.
    """

    reference: Model
    candidate: Model
    path: str
    lowered: Callable[[Model], Model] | None = None

    def simulated(self) -> Model:
        """The reference in integers, and in the engines' float precision where it is what they run."""
        made = simulate.integers(self.reference)
        return made if self.lowered is None or self.reference is not self.candidate else self.lowered(made)

    def rounded(self, model: Model) -> bool:
        """Whether one of the two runs in anything but float32."""
        lowered = self.lowered is not None and model is self.candidate
        return lowered or simulate.is_quantized(model) or simulate.rounding(model) > 0

    @property
    def rounding(self) -> float:
        """How far a tensor of one may be off the other's, over the largest magnitude, where both round it."""
        lowered = simulate.BF16 if self.lowered is not None else 0.0
        return max(lowered, *map(simulate.rounding, (self.reference, self.candidate)))
