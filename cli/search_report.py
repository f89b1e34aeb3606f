"""What is told of a search: report, tables and pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convkit.cli import characters, contest, picture
from convkit.cli.picture import Bar, Point
from convkit.compress import plan as plans
from convkit.compress import promotion, record
from convkit.compress.option import FLOAT
from convkit.compress.search import space as spaces
from convkit.compress.search import tables
from convkit.compress.search.problem import Cost

if TYPE_CHECKING:
    from convkit.cli.searching import Hunt, Searched
    from convkit.compress.option import Option


def report(searched: Searched) -> dict[str, Any]:
    """JSON of the search."""
    trials = [
        {
            "predicted": dataclasses.asdict(trial.predicted),
            "measured": dataclasses.asdict(trial.measured),
            "float_layers": sum(option == searched.space.precision.floating for option in trial.formats.values()),
        }
        for trial in searched.hunt.refined.trials
    ]
    return {
        "criterion": searched.space.criterion.name,
        "missed": list(searched.missed),
        "agreed": searched.hunt.refined.agreed,
        "estimated_latency": searched.space.estimated,
        **searched.work.as_dict(),
        "trials": trials,
        "front": [dataclasses.asdict(choice.cost) for choice in searched.hunt.front],
        "layers": {name: str(option) for name, option in _kept(searched).items()},
        "pins": {name: str(option) for name, option in searched.space.pins.items()},
        "notes": _notes(searched),
    }


def write(searched: Searched, folder: Path) -> None:
    """The pictures, and the tables from which other budgets are solved, where there is anything to choose."""
    criterion = searched.space.criterion
    drawn = {
        "front": picture.front(_points(searched), criterion.axis, criterion.better, estimated=searched.space.estimated),
        "layers": picture.depth(_bars(searched), criterion.alone),
    }
    for name, forms in drawn.items():
        for suffix, content in forms.items():
            record.write_bytes(folder / f"{name}.{suffix}", content)
    others = {f"tables-{_called(other)}.json": other for other in searched.others}
    for name, hunt in {tables.FILE: searched.hunt, **others}.items():
        if hunt.lab.space.options:
            tables.write(folder / name, _tables(hunt))


def _called(hunt: Hunt) -> str:
    """What tells it apart in a file's name."""
    space = hunt.lab.space
    level = "".join(letter if letter.isalnum() else "-" for letter in space.level)
    return "-".join(filter(None, (str(space.precision.floating), level)))


def _tables(hunt: Hunt) -> tables.Tables:
    space = hunt.lab.space
    return tables.Tables(
        space.plan.model,
        space.problem,
        {**space.digests, "plan": space.plan.digest},
        hunt.refined.trials,
        space.builder.target.name,
        space.estimated,
        plans.dump(space.plan),
        space.original,
        str(space.precision.floating),
        space.criterion,
    )


def words(searched: Searched) -> str:
    """The front in characters, and the formats of the layers over depth."""
    criterion = searched.space.criterion
    made = "built, its time estimated" if searched.space.estimated else "measured"
    legend = f"* kept, o {made}, s every layer alike, D original, · predicted; {criterion.upwards}, time to the right"
    work = searched.work.counts
    told = (
        f"{work['evaluations']} full evaluations, {work['glances']} on a part of the samples, {work['builds']} builds"
    )
    drawn = characters.front(_points(searched), better=criterion.better)
    lines = [drawn, legend, "", characters.layers(_bars(searched)), told]
    return "\n".join([*lines, *_notes(searched)])


def _notes(searched: Searched) -> list[str]:
    return [*_bent(searched), *_apart(searched), *promotion.notes(searched.outcome.plan, searched.space.builder.target)]


def _apart(searched: Searched) -> list[str]:
    if searched.hunt.refined.agreed:
        return []
    return ["prediction and measurement did not meet: report.json has both of every network that was tried"]


def _bent(searched: Searched) -> list[str]:
    """What is said of pins that the target's rules for neighbours left no way to keep to."""
    kept = _kept(searched)
    return [
        f"{name} is pinned to {option}, but stands in {kept[name]}: {_why(searched, name)}"
        for name, option in searched.space.pins.items()
        if kept[name] != option
    ]


def _why(searched: Searched, name: str) -> str:
    if searched.outcome.kept == contest.ORIGINAL:
        return "the original was kept"
    has_weight = any(known.weight != known.activation for known in searched.space.options[name])
    return "its neighbours do not allow it" if has_weight else "an operator without weights follows what it reads"


def _kept(searched: Searched) -> Mapping[str, Option]:
    original = searched.outcome.kept == contest.ORIGINAL
    floating = FLOAT if original else searched.space.precision.floating
    return spaces.formats_of(searched.outcome.plan, searched.space.options, floating)


def _points(searched: Searched) -> list[Point]:
    """Predicted and measured choices, and the finalists as the engine ran them."""
    problem, whole = searched.hunt.refined.problem, searched.space.original["seconds"]
    criterion, results = searched.space.criterion, searched.outcome.standing.results
    of_float = next(result.metrics for result in results if result.name == contest.ORIGINAL)
    costs = [problem.cost(choice.formats) for choice in searched.hunt.front]
    found = [Point("", c["seconds"] / whole, criterion.shown(c["loss"]), "predicted") for c in costs]
    measured = [trial.measured for trial in searched.hunt.refined.trials]
    found += [Point("", cost["seconds"] / whole, criterion.shown(cost["loss"]), "measured") for cost in measured]
    kinds: dict[str, picture.Kind] = {contest.ORIGINAL: "original", searched.outcome.kept: "kept"}
    for result in results:
        kind = kinds.get(result.name, "peer" if result.name.startswith(("uniform", "all in")) else "measured")
        quality = criterion.shown(criterion.loss(result.metrics, of_float))
        found.append(Point(result.name, result.ratios["p50"].value, quality, kind))
    return found


def _bars(searched: Searched) -> list[Bar]:
    bars = []
    for name, option in _kept(searched).items():
        known = searched.space.problem.options[name]
        cost, floating = known.get(option, Cost()), known.get(searched.space.precision.floating, Cost())
        most = max(other["loss"] for other in known.values())
        bars.append(Bar(name, str(option), cost["loss"], cost["seconds"], most, floating["seconds"]))
    return bars
