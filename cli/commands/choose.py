"""Choose formats anew from the tables of a search: another budget, or the whole front, in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from convkit.cli import options, show, values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from convkit.compress.budget import Budget
    from convkit.compress.search.problem import Choice, Cost, Problem
    from convkit.compress.search.tables import Tables

    Known = tuple[Tables, Problem]
    """Tables, and their problem as far as it is to be decided."""

_POINTS = 24
"""Points of a front that nobody counted."""


@click.command
@click.argument("tables", type=values.WORD, metavar="TABLES")
@click.option("--latency", metavar="BUDGET", help='At most so long a call: "<=4ms", or "<=0.6x" the original\'s.')
@click.option("--size", metavar="BUDGET", help='A file of at most "<=2MB" or "<=0.25x".')
@click.option("--bops", metavar="BUDGET", help='At most "<=20G" bit operations, or "<=0.1x".')
@click.option("--front", is_flag=True, help="The front of loss and latency within the budgets, instead of one choice.")
@click.option(
    "--points", type=click.IntRange(2), default=_POINTS, show_default=True, help="Points of the front, evenly spaced."
)
@click.option("--plan", type=values.WORD, metavar="FILE", help="Keep to the pins of this plan.yaml.")
@options.json
def choose(
    *,
    tables: str,
    latency: str | None,
    size: str | None,
    bops: str | None,
    front: bool,
    points: int,
    plan: str | None,
    as_json: bool,
) -> None:
    """Choose formats anew from the tables of a search: another budget, or the whole front, in seconds.

    TABLES is the tables.json that `convkit quantize --formats …` leaves, or its folder; those of other precisions that
    stand beside it are chosen from as well. Neither the network nor its engine is loaded. The tables are corrected by
    what that search measured, but what is chosen is a prediction where it does not say that it was measured; `convkit
    quantize … --tables TABLES` builds and measures it.

    \b
    Examples:
      convkit choose out/tables.json --latency "<=3ms"
      convkit choose out/ --size "<=0.3x" --json
      convkit choose out/ --front
    """
    from convkit.compress import budget as wished
    from convkit.compress.search import tables as saved

    budgets = {"latency": latency, "size": size, "bops": bops}
    given = [wished.parse(name, text) for name, text in budgets.items() if text is not None]
    if not given and not front:
        raise click.UsageError('give a budget, such as --latency "<=3ms", or --front', click.get_current_context())
    first = saved.read(tables)
    every = [(known, _open(known, plan)) for known in (first, *saved.beside(tables, first))]
    whole = first.original
    limits = {budget.quantity: budget.absolute(whole[budget.quantity]) for budget in given}
    if front:
        _tell_front(every, whole, limits, points, as_json=as_json)
    else:
        _tell_choice(every, whole, given, limits, as_json=as_json)


PART = choose


def _open(known: Tables, file: str | None) -> Problem:
    """The problem as far as it is to be decided."""
    from convkit.compress import plan as plans
    from convkit.compress.errors import ConvkitError
    from convkit.compress.option import Option
    from convkit.compress.search import pins, problem

    given = plans.read(file) if file else plans.loads(known.plan) if known.plan else None
    if given is None:
        return known.corrected()
    if given.model != known.model:
        raise ConvkitError(f"{file} is for model {given.model[:12]}, the tables are for {known.model[:12]}")
    floating, narrower = Option.parse(known.floating), _narrower(known)
    # The search that was given these pins knew which layers run in float alone.
    seen = set(plans.loads(known.plan).pins) if known.plan else set()
    decided = pins.chosen(given.pins, known.problem.options, seen, floating, narrower)
    return problem.pinned(known.corrected(), decided)


def _narrower(known: Tables) -> Mapping[str, str]:
    """What the target's own format is on processors that it would overflow, as those that the tables may be of."""
    from convkit.compress import target as targets
    from convkit.compress.errors import ConvkitError

    try:
        target = targets.load(known.target)
    except ConvkitError:
        return {}
    return target.on(target.overflow.where if target.overflow else ()).narrower


def _chosen(every: Sequence[Known], limits: dict[str, float]) -> tuple[Tables, Choice] | None:
    """Of all precisions the choice with the least loss within the limits, else that which exceeds them least."""
    from convkit.compress.search import seen

    found = [(known, seen.best(problem, known.trials, limits)) for known, problem in every]
    within = [(known, choice) for known, choice in found if choice is not None]
    if within:
        return min(within, key=lambda pair: seen.cost(pair[0].trials, pair[1]).loss)
    near = [(known, seen.closest(problem, known.trials, limits)) for known, problem in every]
    left = [(known, choice) for known, choice in near if choice is not None]
    return min(left, key=lambda pair: seen.excess(seen.cost(pair[0].trials, pair[1]), limits), default=None)


def _tell_choice(
    every: Sequence[Known], whole: Cost, given: list[Budget], limits: dict[str, float], *, as_json: bool
) -> None:
    from convkit.compress import budget as wished
    from convkit.compress.errors import ConvkitError, VerdictError
    from convkit.compress.search import seen
    from convkit.compress.search.problem import meets

    found = _chosen(every, limits)
    if found is None:
        raise ConvkitError("the tables allow no choice at all", hint="pin fewer layers")
    known, choice = found
    cost = seen.cost(known.trials, choice)
    missed = [
        f"--{budget.name} {budget.text!r} is out of reach; "
        f"the nearest is --{budget.name} {wished.nearest(budget, cost[budget.quantity], whole[budget.quantity])!r}"
        for budget in given
        if not meets(cost[budget.quantity], limits[budget.quantity])
    ]
    if as_json:
        show.json({"schema_version": 1, **_head(known, whole), "missed": missed, **_json(known, choice)})
    else:
        show.table(_columns(known), [_row(known, choice, whole)], title=_title(known))
        show.table(("layer", "format"), [(name, str(option)) for name, option in choice.formats.items()])
    if missed:
        raise VerdictError("; ".join(missed))


def _front(every: Sequence[Known], points: int, limits: dict[str, float]) -> list[tuple[Tables, Choice]]:
    """Choices of all precisions that none beats in both loss and seconds, from the least loss to the least seconds."""
    from convkit.compress.search import seen

    found = [
        (seen.cost(known.trials, choice), known, choice)
        for known, problem in every
        for choice in seen.front(problem, known.trials, points, limits)
    ]
    least = float("inf")
    kept: list[tuple[Tables, Choice]] = []
    for cost, known, choice in sorted(found, key=lambda one: (one[0].seconds, one[0].loss)):
        if cost.loss < least:
            kept.append((known, choice))
            least = cost.loss
    return kept[::-1]


def _tell_front(every: Sequence[Known], whole: Cost, limits: dict[str, float], points: int, *, as_json: bool) -> None:
    from convkit.cli import characters
    from convkit.cli.picture import Point
    from convkit.compress.errors import VerdictError
    from convkit.compress.search import seen

    found, first = _front(every, points, limits), every[0][0]
    if not found:
        raise VerdictError("no choice is within all budgets", hint="give one alone to see how near it comes")
    if as_json:
        front = [_json(known, choice) for known, choice in found]
        show.json({"schema_version": 1, **_head(first, whole), "front": front})
        return
    show.table(_columns(first), [_row(known, choice, whole) for known, choice in found], title=_title(first))
    shown, better = first.criterion.shown, first.criterion.better
    guessed = [choice.cost for known, choice in found if seen.measured(known.trials, choice) is None]
    drawn = [Point("", cost["seconds"] / whole["seconds"], shown(cost["loss"]), "predicted") for cost in guessed]
    tried = [trial.measured for known, _ in every for trial in known.trials]
    drawn += [Point("", c["seconds"] / whole["seconds"], shown(c["loss"]), "measured") for c in tried]
    show.text(characters.front(drawn, height=12, better=better))
    show.text(f"· predicted, o measured; {first.criterion.upwards}, time to the right")


def _columns(known: Tables) -> tuple[str, ...]:
    return "from", "latency", "ratio", "size", "bit operations", known.criterion.heading, "in float"


def _title(known: Tables) -> str:
    seconds = "estimated, not measured" if known.estimated else "from profiles"
    count = len(known.trials)
    by = f"corrected by {count} measured network{'' if count == 1 else 's'}"
    return f"predicted for {known.target}, latency {seconds}, {by}{', of which its own figures stand' if count else ''}"


def _row(known: Tables, choice: Choice, whole: Cost) -> tuple[str, ...]:
    from convkit.compress.search import seen

    measured = seen.measured(known.trials, choice)
    cost = choice.cost if measured is None else measured
    floats = sum(str(option) == known.floating for option in choice.formats.values())
    return (
        "prediction" if measured is None else "measurement",
        f"{cost['seconds'] * 1e3:.3g} ms",
        f"{cost['seconds'] / whole['seconds']:.3f}x",
        f"{cost['bytes'] / 1e6:.3g} MB",
        f"{cost['bops'] / 1e9:.3g} G",
        known.criterion.words(cost["loss"]),
        f"{floats} of {len(choice.formats)}",
    )


def _head(known: Tables, whole: Cost) -> dict[str, Any]:
    import dataclasses

    return {
        "model": known.model,
        "target": known.target,
        "criterion": known.criterion.name,
        "estimated_latency": known.estimated,
        "original": dataclasses.asdict(whole),
        "measured_networks": len(known.trials),
    }


def _json(known: Tables, choice: Choice) -> dict[str, Any]:
    import dataclasses

    from convkit.compress.search import seen

    measured = seen.measured(known.trials, choice)
    return {
        "predicted": dataclasses.asdict(choice.cost),
        "measured": None if measured is None else dataclasses.asdict(measured),
        "layers": {name: str(option) for name, option in choice.formats.items()},
    }
