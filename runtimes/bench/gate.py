"""Gates: what a candidate must reach, in a small language.

QUANTITY <= LIMIT   or   QUANTITY >= LIMIT

p50 <= 0.8x          ratio to the baseline of this run: p50, p90, p99, mean, throughput, memory, size, load
p50 <= 12ms          absolute; weaker, since another machine or another day moves it (us, ms, s)
size <= 2MB          bytes: B, kB, MB, GB, KiB, MiB, GiB; also for memory
throughput >= 100/s  samples a second
top1 >= -0.5         with a sign (or 0): difference to the baseline, in the metric's own unit
top1 >= 80           without one: the metric itself
agreement >= 97      metrics that compare with the baseline have no difference to it: the metric itself
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from convkit.compress import units
from convkit.compress.errors import ConvkitError

Kind = Literal["ratio", "absolute", "difference"]

TIMES = ("p50", "p90", "p99", "mean")
SIZES = ("size", "memory")
MEASURED = (*TIMES, "load", "throughput", *SIZES)
"""Quantities that every bench has; any other name is a metric's."""

_UNITS: dict[str, units.Units] = {
    **dict.fromkeys((*TIMES, "load"), units.SECONDS),
    **dict.fromkeys(SIZES, units.BYTES),
    "throughput": {"/s": 1.0},
}
_METRIC_UNITS = ("", "%", "pt", "dB")
_GATE = re.compile(rf"\s*(?P<what>[A-Za-z_][\w.]*(?::\w+)?)\s*(?P<sense><=|>=)\s*{units.NUMBER}\s*")
_EXAMPLES = 'give WHAT <= or >= a number, such as "p50 <= 0.8x", "size <= 2MB" or "top1 >= -0.5"'


@dataclass(frozen=True, slots=True)
class Gate:
    """`quantity` at most (or at least) `limit`, which is a ratio, seconds, bytes, samples a second or the metric's
    own unit; `text` is the user's spelling.
    """

    quantity: str
    sense: Literal["<=", ">="]
    limit: float
    kind: Kind
    text: str

    @property
    def is_metric(self) -> bool:
        return self.quantity not in MEASURED


def parse(text: str) -> Gate:
    """The gate that `text` says; raises ConvkitError with examples."""
    found = _GATE.fullmatch(text)
    if found is None:
        raise ConvkitError(f"{text!r} is no gate", hint=_EXAMPLES)
    what, unit = found["what"], found["unit"] or ""
    number = float(found["sign"] + found["number"])
    sense: Literal["<=", ">="] = "<=" if found["sense"] == "<=" else ">="
    spelling = " ".join(text.split())
    if what not in MEASURED:
        return Gate(what, sense, number, _metric_kind(text, found["sign"], number, unit), spelling)
    if number < 0:
        raise ConvkitError(f"{text!r} has a negative limit", hint=_EXAMPLES)
    limit, ratio = units.limit(repr(text), what, _UNITS[what], number, unit, over="the baseline")
    return Gate(what, sense, limit, "ratio" if ratio else "absolute", spelling)


def _metric_kind(text: str, sign: str, number: float, unit: str) -> Kind:
    if unit not in _METRIC_UNITS:
        raise ConvkitError(f"{text!r}: {unit!r} is no unit of a metric", hint=_EXAMPLES)
    return "difference" if sign or number == 0 else "absolute"
