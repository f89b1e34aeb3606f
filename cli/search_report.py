"""What is told of a search: report, tables and pictures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.cli import contest, picture
from convkit.cli.picture import Bar, Point
from convkit.compress import metric, promotion, record
from convkit.compress.option import FLOAT
from convkit.compress.search import space as spaces
from convkit.compress.search import tables

if TYPE_CHECKING:
    from convkit.cli.searching import Searched
    from convkit.compress.option import Option

_QUALITY = "SQNR at the output (dB)"
_CLEAN_DB = 60.0
"""Where the float network stands in the picture, whose own noise is none."""


def report(searched: Searched) -> dict[str, Any]:
    """JSON of the search."""
    trials = [
        {
            "predicted": dataclasses.asdict(trial.predicted),
            "measured": dataclasses.asdict(trial.measured),
            "float_layers": sum(option == searched.space.precision.floating for option in trial.formats.values()),
        }
        for trial in searched.refined.trials
    ]
    return {
        "missed": list(searched.missed),
        "agreed": searched.refined.agreed,
        "estimated_latency": searched.space.table.estimated,
        "trials": trials,
        "front": [dataclasses.asdict(choice.cost) for choice in searched.front],
        "layers": {name: str(option) for name, option in _kept(searched).items()},
        "notes": promotion.notes(searched.outcome.plan, searched.space.builder.target),
    }


def write(searched: Searched, folder: Path) -> None:
    """The pictures, and the tables from which other budgets are solved."""
    drawn = {"front": picture.front(_points(searched), _QUALITY), "layers": picture.depth(_bars(searched))}
    for name, forms in drawn.items():
        for suffix, content in forms.items():
            record.write_bytes(folder / f"{name}.{suffix}", content)
    space = searched.space
    digests = {"latency": space.table.fingerprint.digest, "plan": space.plan.digest}
    tables.write(folder / "tables.json", tables.Tables(space.plan.model, space.problem, digests))


def words(searched: Searched) -> str:
    """The front in characters, and how the layers are distributed over formats."""
    counts: dict[str, int] = {}
    for option in _kept(searched).values():
        counts[str(option)] = counts.get(str(option), 0) + 1
    shares = ", ".join(f"{count} in {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
    legend = "* kept, o measured, s uniform, D original, · predicted"
    return f"{picture.terminal(_points(searched))}\n{legend}\nlayers: {shares}"


def _kept(searched: Searched) -> Mapping[str, Option]:
    original = searched.outcome.kept == contest.ORIGINAL
    floating = FLOAT if original else searched.space.precision.floating
    return spaces.formats_of(searched.outcome.plan, searched.space.options, floating)


def _points(searched: Searched) -> list[Point]:
    """Predicted and measured choices, and the finalists as the engine ran them."""
    problem = searched.refined.problem
    whole = searched.space.original.seconds
    found = [
        Point("", c.cost["seconds"] / whole, _db(problem.cost(c.formats)["loss"]), "predicted") for c in searched.front
    ]
    measured = [trial.measured for trial in searched.refined.trials]
    found += [Point("", cost["seconds"] / whole, _db(cost["loss"]), "measured") for cost in measured]
    kinds: dict[str, picture.Kind] = {contest.ORIGINAL: "original", "uniform": "peer", searched.outcome.kept: "kept"}
    for result in searched.outcome.standing.results:
        kind = kinds.get(result.name, "measured")
        quality = min(result.metrics.get("sqnr", metric.LIMIT_DB), _CLEAN_DB)
        found.append(Point(result.name, result.ratios["p50"].value, quality, kind))
    return found


def _db(noise: float) -> float:
    return min(_CLEAN_DB, -10 * math.log10(noise)) if noise > 0 else _CLEAN_DB


def _bars(searched: Searched) -> list[Bar]:
    space, kept = searched.space, _kept(searched)
    bars = []
    for name, option in kept.items():
        cost = space.problem.options[name].get(option)
        bars.append(
            Bar(name, str(option), 0.0 if cost is None else cost["loss"], 0.0 if cost is None else cost["seconds"])
        )
    return bars
