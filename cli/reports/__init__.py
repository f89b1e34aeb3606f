"""How a Measurement and its Verdict are written down; one format a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convkit.runtimes.bench.measure import Measurement
    from convkit.runtimes.bench.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Report:
    """One format; `write` gives the whole text."""

    write: Callable[[Measurement, Verdict], str]
