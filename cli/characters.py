"""The pictures of a search in characters, for a terminal of 80 columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from convkit.cli.picture import Bar, Kind, Point

if TYPE_CHECKING:
    from convkit.compress.metric import Better

_SIGNS: dict[Kind, str] = {"predicted": "·", "measured": "o", "peer": "s", "original": "D", "kept": "*"}
"""What stands for each kind of network; where two meet, the later one."""
_LEVELS = "▁▂▃▄▅▆▇█"
_ROW = 66
"""Layers in a row."""
_DECADES = 4.0
"""Losses that are so many powers of ten below the largest are the lowest level."""


def front(points: Sequence[Point], width: int = 66, height: int = 16, better: Better = "higher") -> str:
    """The front: `*` kept, `o` measured, `s` every layer alike, `D` the original, `·` predicted; time to the right,
    what is better upwards."""
    sign = 1 if better == "higher" else -1
    times, qualities = [p.time for p in points], [sign * p.quality for p in points]
    grid = [[" "] * width for _ in range(height)]
    order = list(_SIGNS)
    for point in sorted(points, key=lambda p: order.index(p.kind)):
        column = _place(point.time, times, width)
        row = height - 1 - _place(sign * point.quality, qualities, height)
        grid[row][column] = _SIGNS[point.kind]
    top, bottom = (f"{_number(sign * end):>8} " for end in (max(qualities), min(qualities)))
    sides = [top, *[" " * len(top)] * (height - 2), bottom]
    lines = [f"{side}│{''.join(row).rstrip()}" for side, row in zip(sides, grid, strict=True)]
    scale = f"{min(times):.2f}x".ljust(width - 6) + f"{max(times):.2f}x"
    return "\n".join([*lines, " " * len(top) + "└" + "─" * width, " " * (len(top) + 1) + scale])


def _number(value: float) -> str:
    """In tenths, or what is small to two digits."""
    return f"{value:.1f}" if abs(value) >= 1 or not value else f"{value:.2g}"


def _place(value: float, values: Sequence[float], size: int) -> int:
    low, high = min(values), max(values)
    return round((value - low) / (high - low) * (size - 1)) if high > low else 0


def layers(bars: Sequence[Bar]) -> str:
    """A character a layer, first to last: its format, the loss it brings (in powers of ten) and its time."""
    counts: dict[str, int] = {}
    for bar in bars:
        counts[bar.option] = counts.get(bar.option, 0) + 1
    signs = _letters(sorted(counts, key=lambda option: -counts[option]))
    rows = {
        "formats": "".join(signs[bar.option] for bar in bars),
        "loss": _levels([_decades(bar.loss, max(b.loss for b in bars)) for bar in bars]),
        "time": _levels([bar.seconds for bar in bars]),
    }
    lines = []
    for start in range(0, len(bars), _ROW):
        lines += [f"{name:>8} │{row[start : start + _ROW]}" for name, row in rows.items()]
    legend = ", ".join(f"{signs[option]} {option} ({count})" for option, count in counts.items()) or "none"
    return "\n".join([*lines, *_wrapped(legend)])


def _letters(options: Sequence[str]) -> dict[str, str]:
    """A letter for each option: float is a dot, others their first free character from the front, digits first."""
    signs: dict[str, str] = {}
    for option in options:
        name = option.partition("/")[0]
        wanted = [*(c for c in name if c.isdigit()), *(c for c in name if c.isalpha()), *"abcdefghijklmnopqrstuvwxyz"]
        free = (c for c in wanted if c not in signs.values())
        signs[option] = "." if option == "fp32" else next(free)
    return signs


def _decades(loss: float, most: float) -> float:
    return max(0.0, _DECADES + math.log10(loss / most)) if loss > 0 else 0.0


def _levels(values: Sequence[float]) -> str:
    most = max(values, default=0.0)
    return "".join(
        " " if value <= 0 else _LEVELS[min(len(_LEVELS) - 1, int(value / most * len(_LEVELS)))] for value in values
    )


def _wrapped(words: str, width: int = 78) -> list[str]:
    import textwrap

    return textwrap.wrap(words, width, initial_indent="layers: ", subsequent_indent="        ")
