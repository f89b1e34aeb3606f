"""Pictures of a search: what each network costs and is worth, and which formats the layers got over depth."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from convkit.compress.option import FLOAT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from convkit.compress.metric import Better

Kind = Literal["predicted", "measured", "peer", "original", "kept"]

_MARKS: dict[Kind, tuple[str, str, int]] = {
    "predicted": (".", "0.55", 30),
    "measured": ("o", "tab:blue", 36),
    "peer": ("s", "tab:orange", 52),
    "original": ("D", "black", 44),
    "kept": ("*", "tab:red", 190),
}
"""Marker, colour and size of each kind of network."""
_OTHERS: dict[Kind, str] = {"measured": "^v<>ph", "peer": "PX<>ph"}
"""Markers of those beyond the first that have names of their own."""
_SUFFIXES = ("svg", "png")
_WIDTH, _DPI = 8.0, 150
"""Inches, and points an inch: 1200 across."""
_NAMES = 48
"""Names of layers that there is room for."""
_DECADES = 1e-3
"""Part of the largest loss beneath which an axis with losses on both sides of nothing is linear."""


@dataclass(frozen=True, slots=True)
class Point:
    """A network: its time relative to the original's, and its quality."""

    name: str
    time: float
    quality: float
    kind: Kind


@dataclass(frozen=True, slots=True)
class Bar:
    """A layer: the option it got, the loss that it alone brings, and its seconds.

    `most` is the loss of the worst option that it did not get, `floating` its seconds in float.
    """

    name: str
    option: str
    loss: float
    seconds: float
    most: float = 0.0
    floating: float = 0.0


def front(
    points: Sequence[Point], quality: str, better: Better = "higher", *, estimated: bool = False
) -> dict[str, bytes]:
    """The Pareto front as "svg" and "png"; `quality` names the vertical axis, on which what is better is above.

    `estimated`: no time of these points was measured.
    """

    def draw(figure: Figure) -> None:
        _front(figure, points, quality, better)
        if estimated:
            (axes,) = figure.axes
            axes.set_xlabel("ESTIMATED time of a call, as a part of the original's")
            axes.set_title("Accuracy against time that was estimated: the target's engine was not at hand", fontsize=10)

    return _drawn((_WIDTH, 5.2), draw)


def depth(bars: Sequence[Bar], loss: str) -> dict[str, bytes]:
    """Formats, sensitivity and time of every layer in execution order, as "svg" and "png"; `loss` names its axis."""
    return _drawn((_WIDTH, 6.0), lambda figure: _depth(figure, bars, loss))


def policy(
    history: Sequence[Sequence[Sequence[float]]], names: Sequence[str], options: Sequence[str]
) -> dict[str, bytes]:
    """How probable each of the `options` was for each decision, by epoch, as "svg" and "png"; `history` [epochs,
    decisions, options].
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(options), sharey=True, squeeze=False)[0]
        for at, (panel, option) in enumerate(zip(axes, options, strict=True)):
            rows = [[epoch[row][at] for epoch in history] for row in range(len(names))]
            shown = panel.imshow(rows, aspect="auto", vmin=0.0, vmax=1.0, cmap="viridis", interpolation="nearest")
            panel.set(title=option, xlabel="epoch")
            panel.grid(visible=False)
        step = -(-len(names) // _NAMES) or 1
        places = range(0, len(names), step)
        axes[0].set_yticks(list(places), [_short(names[place]) for place in places], fontsize=6)
        axes[0].set_ylabel("layers, first to last" + (f"; every {step}. is named" if step > 1 else ""))
        figure.colorbar(shown, ax=list(axes), label="probability")

    return _drawn((_WIDTH, min(9.0, 2.0 + 0.16 * len(names))), draw)


def _drawn(size: tuple[float, float], draw: Callable[[Figure], None]) -> dict[str, bytes]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style = mpl.RcParams(mpl.rcParamsDefault)
    # A fixed salt: the same picture is the same bytes.
    style |= {"svg.hashsalt": "convkit", "svg.fonttype": "none", "font.size": 9.0, "axes.grid": True, "grid.alpha": 0.3}
    style |= {"axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True}
    with mpl.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # it is laid out, for every file alike
        return {suffix: _written(figure, suffix) for suffix in _SUFFIXES}


def _written(figure: Figure, suffix: str) -> bytes:
    held = io.BytesIO()
    undated = {"Date": None} if suffix == "svg" else {"Software": None}
    figure.savefig(held, format=suffix, dpi=_DPI, metadata=undated)
    return held.getvalue()


def _front(figure: Figure, points: Sequence[Point], quality: str, better: Better) -> None:
    axes = figure.add_subplot()
    predicted = sorted((p for p in points if p.kind == "predicted"), key=lambda p: p.time)
    axes.plot([p.time for p in predicted], [p.quality for p in predicted], color="0.8", linewidth=1, zorder=1)
    for kind, (marker, colour, size) in _MARKS.items():
        names = dict.fromkeys(p.name for p in points if p.kind == kind)
        shapes = _shapes(kind, marker, [name for name in names if name])
        for name in names:
            chosen = [p for p in points if p.kind == kind and p.name == name]
            hollow = kind == "measured" and name
            axes.scatter(
                [p.time for p in chosen],
                [p.quality for p in chosen],
                s=size * 2 if hollow else size,
                facecolors="none" if hollow else colour,
                edgecolors=colour,
                marker=shapes.get(name, marker),
                label=_label(kind, name),
                zorder=4 if kind == "kept" else 3,
            )
    axes.margins(0.06, 0.08)
    axes.set_xlabel("time of a call, as a part of the original's")
    axes.set_ylabel(quality)
    if better == "lower":
        axes.yaxis.set_inverted(True)
    axes.set_title("Accuracy against time: predicted by the tables, and measured", fontsize=10)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)


def _shapes(kind: Kind, marker: str, names: Sequence[str]) -> dict[str, str]:
    """The marker of each network that has a name, one after the other."""
    return dict(zip(names, itertools.cycle(marker + _OTHERS.get(kind, "")), strict=False))


_LABELS: dict[Kind, str] = {
    "predicted": "predicted by the tables",
    "measured": "measured on the way",
    "peer": "every layer alike",
    "original": "the original, in float",
    "kept": "kept",
}


def _label(kind: Kind, name: str) -> str:
    """What the legend calls a network."""
    if kind == "measured" and name:
        return f"measured: {name}"
    return f"{_LABELS[kind]}: {name}" if name and kind != "original" else _LABELS[kind]


def _depth(figure: Figure, bars: Sequence[Bar], loss: str) -> None:
    from matplotlib.patches import Patch

    options = sorted({bar.option for bar in bars})
    low = [option for option in options if option != str(FLOAT)]
    colours = {str(FLOAT): "0.75"} | {option: f"C{index}" for index, option in enumerate(low)}
    above, strip, below = figure.subplots(3, 1, sharex=True, height_ratios=(6, 0.8, 6))
    painted = [colours[bar.option] for bar in bars]
    _pair(above, [bar.loss for bar in bars], [bar.most for bar in bars], painted)
    _pair(below, [bar.seconds * 1e6 for bar in bars], [bar.floating * 1e6 for bar in bars], painted)
    _scale(above, [loss for bar in bars for loss in (bar.loss, bar.most)])
    above.set_ylabel(loss)
    below.set_ylabel("time (µs)")
    strip.bar(range(len(bars)), 1.0, color=painted, width=1.0)
    strip.set(yticks=[], ylabel="format", ylim=(0, 1))
    strip.yaxis.label.set(rotation=0, horizontalalignment="right", verticalalignment="center")
    step = -(-len(bars) // _NAMES) or 1
    places = range(0, len(bars), step)
    below.set_xticks(list(places), [_short(bars[place].name) for place in places], rotation=90, fontsize=6)
    below.set_xlabel("layers, first to last" + (f"; every {step}. is named" if step > 1 else ""))
    below.set_xlim(-0.8, len(bars) - 0.2)
    handles = [Patch(color=colours[option], label=option) for option in options]
    handles.append(Patch(facecolor="none", edgecolor="0.55", label="its lossiest format; its time in float"))
    figure.legend(handles=handles, fontsize=8, ncols=min(len(handles), 5), loc="outside upper center", frameon=False)


def _scale(axes: Axes, losses: Sequence[float]) -> None:
    """Powers of ten, to both sides of nothing where there are gains."""
    if min(losses, default=0.0) < 0:
        axes.set_yscale("symlog", linthresh=_DECADES * max(map(abs, losses)))
    elif any(losses):
        axes.set_yscale("log")


def _pair(axes: Axes, values: Sequence[float], others: Sequence[float], colours: Sequence[str]) -> None:
    """Bars, and outlines of what they might have been."""
    places = range(len(values))
    axes.bar(places, others, facecolor="none", edgecolor="0.55", linewidth=0.7, width=0.85)
    axes.bar(places, values, color=list(colours), width=0.85)
    axes.grid(visible=False, axis="x")


def _short(name: str, most: int = 28) -> str:
    """The end of a long name tells more."""
    return name if len(name) <= most else f"…{name[1 - most :]}"
