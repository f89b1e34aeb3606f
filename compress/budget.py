"""The Budget: what a network may cost at most, as a person wishes it.

latency  <=4ms     us, ms, s
size     <=2MB     B, kB, MB, GB, KiB, MiB, GiB
bops     <=20G     M, G, T: multiply-accumulates times bits of the weight times bits of the activation
any      <=0.6x    times what the original costs
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from convkit.compress import units
from convkit.compress.errors import ConvkitError

QUANTITIES = {"latency": "seconds", "size": "bytes", "bops": "bops"}
"""What a wish is called, and the quantity that it limits."""
_UNITS = {"latency": units.SECONDS, "size": units.BYTES, "bops": units.BIT_OPERATIONS}
_EXAMPLES = {"latency": '"<=4ms" or "<=0.6x"', "size": '"<=2MB" or "<=0.25x"', "bops": '"<=20G" or "<=0.1x"'}
_BUDGET = re.compile(rf"\s*(?P<sense><=)?\s*{units.NUMBER}\s*")
_DIGITS = 3


@dataclass(frozen=True, slots=True)
class Budget:
    """`quantity` ("seconds", "bytes" or "bops") is at most `limit`, in units of one, or times the original's.

    `text` is the wish as it is written behind `name`.
    """

    name: str
    quantity: str
    limit: float
    relative: bool
    text: str

    def absolute(self, original: float) -> float:
        """The limit in units of one, where the original network takes `original`."""
        return self.limit * original if self.relative else self.limit


def parse(name: str, text: str) -> Budget:
    """The budget that `--name text` wishes; raises ConvkitError with examples."""
    found = _BUDGET.fullmatch(text)
    hint = f"give the most that is allowed, such as {_EXAMPLES[name]}"
    if found is None:
        raise ConvkitError(f"--{name} {text!r} is no budget", hint=hint)
    number, unit = float(found["sign"] + found["number"]), found["unit"] or ""
    limit, relative = units.limit(f"--{name} {text!r}", name, _UNITS[name], number, unit, over="the original")
    if limit <= 0:
        raise ConvkitError(f"--{name} {text!r} leaves nothing", hint=hint)
    return Budget(name, QUANTITIES[name], limit, relative, f"<={found['number']}{unit}")


def reachable(name: str, value: float) -> str:
    """The wish, rounded up to three digits, that a network which takes `value` just fulfils."""
    unit, size = _fitting(_UNITS[name], value)
    exponent = math.floor(math.log10(value / size)) + 1 - _DIGITS if value > 0 else 0
    # An integer over a power of ten is the decimal number that is meant, to the last bit.
    steps = math.ceil(value / size / 10.0**exponent)
    while parse(name, text := f"<={_decimal(steps, exponent)}{unit}").limit < value:
        steps += 1
    return text


def nearest(budget: Budget, taken: float, original: float) -> str:
    """The wish that what takes `taken` just fulfils, in the words of `budget`: times the original where it was so."""
    if not budget.relative:
        return reachable(budget.name, taken)
    thousandths = math.ceil(taken / original * 1000)
    while taken > thousandths / 1000 * original:
        thousandths += 1
    return f"<={thousandths / 1000:.3f}x"


def _decimal(steps: int, exponent: int) -> str:
    """`steps` times ten to the `exponent`, written out."""
    return f"{max(steps, 1)}{'0' * exponent}" if exponent >= 0 else f"{max(steps, 1) / 10**-exponent:.{-exponent}f}"


def _fitting(known: units.Units, value: float) -> tuple[str, float]:
    """The largest decimal unit of which `value` is at least one; the smallest where it is less than one of any."""
    decimal = {unit: size for unit, size in known.items() if "i" not in unit}
    below = [(size, unit) for unit, size in decimal.items() if size <= value]
    size, unit = max(below) if below else min((size, unit) for unit, size in decimal.items())
    return unit, size
