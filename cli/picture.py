"""Pictures of a search: what each network costs and is worth, and which formats the layers got over depth."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Kind = Literal["predicted", "measured", "peer", "original", "kept"]

_MARKS: dict[Kind, tuple[str, str]] = {
    "predicted": (".", "0.6"),
    "measured": ("o", "tab:blue"),
    "peer": ("s", "tab:orange"),
    "original": ("D", "black"),
    "kept": ("*", "tab:red"),
}
"""Marker and colour of each kind of network."""
_SUFFIXES = ("svg", "png")


@dataclass(frozen=True, slots=True)
class Point:
    """A network: its time relative to the original's, and its quality, larger is better."""

    name: str
    time: float
    quality: float
    kind: Kind


@dataclass(frozen=True, slots=True)
class Bar:
    """A layer: the option it got, the loss it alone brings (noise over signal), and its share of the time."""

    name: str
    option: str
    loss: float
    seconds: float


def front(points: Sequence[Point], quality: str) -> dict[str, bytes]:
    """The Pareto front as "svg" and "png"; `quality` names the vertical axis."""
    return _drawn((6.4, 4.2), lambda figure: _front(figure.add_subplot(), points, quality))


def depth(bars: Sequence[Bar]) -> dict[str, bytes]:
    """Formats, sensitivity and time of every layer in execution order, as "svg" and "png"."""
    return _drawn((max(6.4, 0.11 * len(bars) + 2), 4.8), lambda figure: _depth(figure, bars))


def _drawn(size: tuple[float, float], draw: Callable[[Figure], None]) -> dict[str, bytes]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style = mpl.RcParams(mpl.rcParamsDefault)
    # A fixed salt: the same picture is the same bytes.
    style |= {"svg.hashsalt": "convkit", "svg.fonttype": "none", "font.size": 9.0, "axes.grid": True, "grid.alpha": 0.3}
    with mpl.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        return {suffix: _written(figure, suffix) for suffix in _SUFFIXES}


def _written(figure: Figure, suffix: str) -> bytes:
    held = io.BytesIO()
    undated = {"Date": None} if suffix == "svg" else {"Software": None}
    figure.savefig(held, format=suffix, dpi=150, metadata=undated)
    return held.getvalue()


def _front(axes: Axes, points: Sequence[Point], quality: str) -> None:
    predicted = sorted((p for p in points if p.kind == "predicted"), key=lambda p: p.time)
    axes.plot([p.time for p in predicted], [p.quality for p in predicted], color="0.8", linewidth=1, zorder=0)
    for kind, (marker, colour) in _MARKS.items():
        chosen = [p for p in points if p.kind == kind]
        if chosen:
            size = 140 if kind == "kept" else 30
            times, qualities = [p.time for p in chosen], [p.quality for p in chosen]
            axes.scatter(times, qualities, s=size, c=colour, marker=marker, label=kind, zorder=2)
    for point in points:
        if point.kind != "predicted":
            axes.annotate(
                point.name, (point.time, point.quality), xytext=(5, 4), textcoords="offset points", fontsize=7
            )
    axes.set_xlabel("time, relative to the original")
    axes.set_ylabel(quality)
    axes.legend(loc="lower right", fontsize=8)


def _depth(figure: Figure, bars: Sequence[Bar]) -> None:
    options = sorted({bar.option for bar in bars})
    colours = {option: f"C{index}" for index, option in enumerate(options)}
    above, below = figure.subplots(2, 1, sharex=True)
    places = range(len(bars))
    for axes, values, label in (
        (above, [bar.loss for bar in bars], "loss alone (noise / signal)"),
        (below, [bar.seconds * 1e6 for bar in bars], "time (µs)"),
    ):
        axes.bar(places, values, color=[colours[bar.option] for bar in bars], width=0.85)
        axes.set_ylabel(label)
    if any(bar.loss > 0 for bar in bars):
        above.set_yscale("log")
    handles = [above.bar([0], [0], color=colours[option], label=option) for option in options]
    above.legend(handles=handles, fontsize=8, ncols=max(1, len(options)), loc="upper right")
    below.set_xticks(list(places), [bar.name for bar in bars], rotation=90, fontsize=4)
    below.set_xlabel("layers, first to last")


def terminal(points: Sequence[Point], width: int = 64, height: int = 16) -> str:
    """The front in characters: `*` kept, `o` measured, `s` peers, `D` the original, `·` predicted."""
    times, qualities = [p.time for p in points], [p.quality for p in points]
    grid = [[" "] * width for _ in range(height)]
    order = list(_MARKS)
    for point in sorted(points, key=lambda p: order.index(p.kind)):
        column = _place(point.time, times, width)
        row = height - 1 - _place(point.quality, qualities, height)
        grid[row][column] = {"predicted": "·", "measured": "o", "peer": "s", "original": "D", "kept": "*"}[point.kind]
    top, bottom = f"{max(qualities):8.1f} ", f"{min(qualities):8.1f} "
    sides = [top, *[" " * len(top)] * (height - 2), bottom]
    lines = [f"{side}│{''.join(row).rstrip()}" for side, row in zip(sides, grid, strict=True)]
    scale = f"{min(times):.2f}x".ljust(width - 6) + f"{max(times):.2f}x"
    return "\n".join([*lines, " " * len(top) + "└" + "─" * width, " " * (len(top) + 1) + scale])


def _place(value: float, values: Sequence[float], size: int) -> int:
    low, high = min(values), max(values)
    return round((value - low) / (high - low) * (size - 1)) if high > low else 0
