"""What the formats of `convkit train --search` cost: bit operations, or the seconds that an earlier search measured."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from convkit.cli import show
from convkit.compress.errors import ConvkitError, VerdictError

if TYPE_CHECKING:
    from convkit.cli.quantized_options import Asked
    from convkit.cli.quantizing import Job
    from convkit.compress.budget import Budget
    from convkit.compress.calibration import Calibration
    from convkit.compress.option import Option
    from convkit.compress.plan import LayerPlan, Plan
    from convkit.compress.search.problem import Problem
    from convkit.compress.search.tables import Tables
    from convkit.compress.training.choices import Choices
    from convkit.compress.training.costs import Costs
    from convkit.compress.training.width_costs import WidthCosts
    from convkit.compress.training.widths import Widths

_SAME = 1e-6
"""Of what the network given takes: a difference that is none."""
_QUANTITIES = {"seconds": "time", "bops": "bit operations"}
Members = Mapping[str, Sequence[str]]
"""The layers of each decision."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the network may cost at most; seconds are those of `tables`, read from `path`, whose file has `digest`."""

    budget: Budget
    tables: Tables | None = None
    path: str = ""
    digest: str | None = None


def wished(asked: Asked, job: Job) -> Wish:
    """The budget, and the tables that it is told by; raises ConvkitError for those of another network or target."""
    from convkit.compress import budget, record
    from convkit.compress import plan as plans
    from convkit.compress.option import FLOAT
    from convkit.compress.search import tables

    if asked.tables is None:
        return Wish(budget.parse("bops", str(asked.bops)))
    found = tables.read(asked.tables, job.model.digest)
    if found.target != job.target.name:
        raise ConvkitError(
            f"{asked.tables} tells what {found.target} takes, not {job.target.name}",
            hint=f"give --target {found.target}",
        )
    if found.floating != FLOAT.weight or (found.plan and plans.loads(found.plan).widths):
        raise ConvkitError(
            f"{asked.tables} tells what a narrower network, or layers in {found.floating}, take",
            hint="give the tables of the network as it is, and of layers in fp32",
        )
    if found.estimated:
        show.note(f"the times in {asked.tables} are estimates")
    wish = budget.parse("latency", str(asked.latency))
    return Wish(wish, found, asked.tables, record.digest_file(tables.file(asked.tables)))


def made(
    job: Job,
    planned: Mapping[str, Plan],
    choices: Choices,
    ends: Collection[str],
    wish: Wish,
    calibration: Calibration,
) -> tuple[Costs | WidthCosts, float]:
    """What the formats of `choices`, but for `ends`, and their widths cost by the plans of all labels, and what the
    whole network may."""
    from convkit.compress.search.problem import meets
    from convkit.compress.training import costs

    found: Costs | WidthCosts
    members = choices.members(ends)
    if choices.channels is not None:
        found, original = _by_widths(job, planned, members, choices.channels, calibration)
    elif wish.tables is None:
        found, original = by_bops(job, planned, members, calibration)
    else:
        options = _options(planned)
        problem, original = _seconds(wish.tables, wish.path, options, members), wish.tables.original.seconds
        found = costs.Costs(problem, wish.budget.quantity, members, options)
    target = wish.budget.absolute(original)
    least, most = found.ends()
    _told_apart(wish.budget, least, most, original)
    if not meets(least, target):
        raise VerdictError(
            f"{_said(wish.budget)} is less than these formats can do",
            hint=f'give at least "{_nearest(wish.budget, least, original)}"',
        )
    if meets(most, target):
        raise ConvkitError(
            f"{_said(wish.budget)} has room for {next(iter(planned))} in every layer: there is nothing to search",
            hint=f'give less than "{_nearest(wish.budget, most, original)}", or --precision',
        )
    return found, target


def _told_apart(wish: Budget, least: float, most: float, original: float) -> None:
    """Raise ConvkitError where no choice costs more than another."""
    if most - least <= _SAME * original:
        raise ConvkitError(
            f"these formats all take the same {_QUANTITIES[wish.quantity]} on this target",
            hint="search by --bops, or formats that differ there",
        )


def _said(wish: Budget) -> str:
    return f"--{wish.name} {wish.text}"


def _nearest(wish: Budget, taken: float, original: float) -> str:
    from convkit.compress import budget

    return budget.nearest(wish, taken, original)


def _option(layer: LayerPlan) -> Option:
    from convkit.compress.option import Option

    return Option(layer.weight or layer.activation, layer.activation)


def _options(planned: Mapping[str, Plan]) -> dict[str, dict[str, Option]]:
    return {label: {name: _option(layer) for name, layer in plan.layers.items()} for label, plan in planned.items()}


def by_bops(job: Job, planned: Mapping[str, Plan], members: Members, calibration: Calibration) -> tuple[Costs, float]:
    """What the formats of `members` cost in bit operations; and what the network takes in float."""
    from convkit.compress.option import FLOAT
    from convkit.compress.search import space
    from convkit.compress.search.problem import Cost
    from convkit.compress.training import costs

    options, (first, *_) = _options(planned), planned.values()
    macs, original = _macs(job, first, calibration)
    layers = [layer for own in members.values() for layer in own]
    each = {
        layer: {own[layer]: Cost(bops=space.bops(macs[layer], None, own[layer])) for own in options.values()}
        for layer in layers
    }
    usual, *_ = options.values()
    rest = sum(space.bops(count, None, usual.get(name, FLOAT)) for name, count in macs.items() if name not in each)
    return costs.Costs(costs.problem(each, members, Cost(bops=rest)), "bops", members, options), original


def _macs(job: Job, plan: Plan, calibration: Calibration) -> tuple[dict[str, int], float]:
    """Multiply-accumulates of the layers, and bit operations of the network in float."""
    from convkit.compress.analysis import analyse
    from convkit.compress.apply import prepare
    from convkit.compress.search import space

    prepared = analyse(prepare(job.model, plan.methods, calibration.probe))
    whole = space.float_bops(sum(layer.macs for layer in analyse(job.model).layers))
    return {layer.name: layer.macs for layer in prepared.layers}, whole


def _by_widths(
    job: Job, planned: Mapping[str, Plan], members: Members, widths: Widths, calibration: Calibration
) -> tuple[WidthCosts, float]:
    """The same of formats and widths."""
    from convkit.compress.option import FLOAT
    from convkit.compress.search import space
    from convkit.compress.training.width_costs import ONLY, WidthCosts

    options, (first, *_) = _options(planned), planned.values()
    macs, original = _macs(job, first, calibration)
    decided, (usual, *_) = {layer for own in members.values() for layer in own}, options.values()
    each = {
        layer: {label: space.bops(count, None, own[layer]) for label, own in options.items()}
        if layer in decided
        else {ONLY: space.bops(count, None, usual.get(layer, FLOAT))}
        for layer, count in macs.items()
    }
    return WidthCosts(each, members, options, widths), original


def _seconds(tables: Tables, path: str, options: Mapping[str, Mapping[str, Option]], members: Members) -> Problem:
    """By the tables of an earlier search, corrected by what it measured.

    Layers without a choice run as the first label has them, in float where that says nothing.
    """
    from convkit.compress.option import Option

    known, floating = tables.corrected(), Option.parse(tables.floating)
    usual, *_ = options.values()
    decided = {layer for own in members.values() for layer in own}
    if missing := sorted(decided - set(known.options)):
        raise ConvkitError(f"{path} tells nothing of {missing[0]}", hint="let the search of these tables have it too")
    asked = {
        name: [own[name] for own in options.values()] if name in decided else [usual.get(name, floating)]
        for name in known.options
    }
    for name, wanted in asked.items():
        for option in wanted:
            if option not in known.options[name]:
                raise ConvkitError(
                    f"{path} does not tell what {name} takes in {option}",
                    hint="let the search of these tables have this format too",
                )
    each = {name: {option: known.options[name][option] for option in wanted} for name, wanted in asked.items()}
    groups = tuple(tuple(own) for own in members.values() if len(own) > 1)
    return replace(known, options=each, groups=groups)
