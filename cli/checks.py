"""The checks of `convkit verify` as people read them: each with its limit's name, unit and direction, the worst first
to be seen among hundreds of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from convkit.cli import show
from convkit.runtimes.parity.checks import AT_MOST

if TYPE_CHECKING:
    from convkit.runtimes.parity.checks import Check
    from convkit.runtimes.parity.compare import Comparison

_SHOWN = 10
"""Checks of layers that are printed, beside the first of each engine that missed."""
_UNITS = {"relative": "", "sqnr": " dB", "codes": " equal", "end_to_end": " equal"}
_COLUMNS = ("engine", "measure", "value", "limit", "verdict")


def table(found: Comparison) -> None:
    """Layers that missed and those nearest to it, then all outputs and metrics."""
    layers = [check for check in found.checks if check.layer]
    if layers:
        shown = _worst(layers)
        rows = [(_name(c), *_figures(c)) for c in shown]
        show.table(("layer", *_COLUMNS), rows)
        if len(shown) < len(layers):
            show.text(f"the {len(shown)} worst of {len(layers)} checks of layers; --json has all")
        for engine, first in found.first_departure.items():
            show.text(f"{engine}: {_summary([c for c in layers if c.engine == engine], first)}\n")
    others = [(c.tensor, *_figures(c)) for c in found.checks if not c.layer]
    show.table(("output", *_COLUMNS), others)


def miss(found: Comparison) -> str:
    """The first miss, in words."""
    missed = [check for check in found.checks if not check.passed]
    first, where = missed[0], missed[0].layer or missed[0].tensor
    limit = f"the limit is {first.tolerance} {_limit(first)}"
    return (
        f"{len(missed)} of {len(found.checks)} checks failed; the first: {first.engine}, {where}: "
        f"{first.measure} is {_value(first)}, {limit}"
    )


def _name(check: Check) -> str:
    return check.layer if check.tensor == check.layer else f"{check.layer}: {check.tensor}"


def _figures(check: Check) -> tuple[str, str, str, str, str]:
    limit = "–" if check.limit is None else _limit(check)
    named = limit if check.limit is None or check.tolerance == check.measure else f"{check.tolerance} {limit}"
    verdict = "–" if check.limit is None else "pass" if check.passed else "FAIL"
    return check.engine, check.measure, _value(check), named, verdict


def _value(check: Check) -> str:
    return f"{check.value:.4g}{_unit(check)}"


def _limit(check: Check) -> str:
    return f"{'≤' if check.measure in AT_MOST else '≥'} {check.limit:.4g}{_unit(check)}"


def _unit(check: Check) -> str:
    from convkit.compress import metric

    if check.measure in _UNITS:
        return _UNITS[check.measure]
    unit = metric.load(check.tensor).unit
    return f" {unit}" if unit else ""


def _worst(layers: Sequence[Check]) -> list[Check]:
    """Those nearest to their limits or furthest beyond, with the first of each engine that missed, as they ran."""
    missed = [check for check in layers if not check.passed]
    first = [next(check for check in missed if check.engine == engine) for engine in {c.engine for c in missed}]
    ranked = sorted(layers, key=lambda c: (c.limit is not None, _error(c)), reverse=True)
    chosen = {id(check) for check in (*ranked[:_SHOWN], *first)}
    return [check for check in layers if id(check) in chosen]


def _error(check: Check) -> float:
    """A check's error as a multiple of what is allowed."""
    limit = check.limit or 0.0
    if check.measure == "sqnr":
        return float(10 ** ((limit - check.value) / 20))
    if check.measure == "relative":
        return check.value / limit if limit else check.value
    return (1 - check.value) / (1 - limit) if limit < 1 else 1 - check.value


def _summary(checks: Sequence[Check], first: str | None) -> str:
    departed = {check.layer for check in checks if not check.passed}
    every = {check.layer for check in checks}
    told = "no layer departs" if first is None else f"{first} is the first layer that departs"
    return f"{told}; {len(every - departed)} of {len(every)} layers within limits"
