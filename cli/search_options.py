"""The options of commands that decide about a trained network by what its layers lose, and take on a target."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from convkit.cli import options, values

_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "max_drop": click.option(
        "--max-drop",
        type=click.FloatRange(0),
        callback=values.finite,
        default=5.0,
        show_default=True,
        metavar="POINTS",
        help="Agreement or top-1 that may be lost on held-back samples; of PSNR, 1 dB for 5 points.",
    ),
    "min_sqnr": click.option(
        "--min-sqnr",
        type=float,
        callback=values.finite,
        metavar="DB",
        help="Signal to quantization noise at the output, at least.  [default: 10.0 for classes, else 20.0]",
    ),
    "latency": click.option(
        "--latency", metavar="BUDGET", help='At most so long a call: "<=4ms", or "<=0.6x" the original\'s.'
    ),
    "size": click.option("--size", metavar="BUDGET", help='A file of at most "<=2MB" or "<=0.25x".'),
    "bops": click.option("--bops", metavar="BUDGET", help='At most "<=20G" bit operations, or "<=0.1x".'),
    "by_labels": click.option(
        "--by-labels",
        is_flag=True,
        help="Search by the labels of the data: what choices add to cross-entropy, or to squared error where labels "
        "are the outputs wanted, in place of the distance to the network in float.",
    ),
    "keep": click.option(
        "--keep",
        type=values.WORD,
        multiple=True,
        metavar="LAYER|OPERATOR",
        help="Leave this layer or kind in float.",
    ),
    "plan": click.option(
        "--plan",
        type=values.WORD,
        metavar="FILE",
        help="Apply this plan.yaml, edited by hand perhaps; with formats, forms or a budget, search all that it does "
        "not pin.",
    ),
    "tables": click.option(
        "--tables",
        type=values.WORD,
        metavar="FILE|FOLDER",
        help="Search formats with the tables.json of an earlier search: sensitivity and latency are not measured anew.",
    ),
    "budget": click.option(
        "--budget",
        type=click.FloatRange(1),
        callback=values.finite,
        default=15.0,
        show_default=True,
        metavar="SECONDS",
        help="Time for measuring latency.",
    ),
    "tune": click.option(
        "--tune/--no-tune",
        default=True,
        show_default=True,
        help="Find the engine's fastest knobs first, for the original as for what is made of it.",
    ),
    "threads": options.threads,
    "seed": options.seed,
    "as_json": options.json,
    "dry_run": options.dry_run,
    "resume": options.resume,
}
"""By what they set, in the order of their help."""
_BUDGETS = ("latency", "size", "bops")
_MEASURING: Mapping[str, Any] = {
    **dict.fromkeys((*_BUDGETS, "tables")),
    "budget": 0.0,
    "tune": False,
    "dry_run": False,
}
"""Options that are of measuring on the target, and what stands for them where nothing is measured."""


def formats(*, required: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--formats; the command gets `formats`."""
    return click.option(
        "--formats",
        type=values.WORD,
        required=required,
        metavar="NAME,...",
        help="Search the format of each layer among these and float: int8,int4,fp8_e4m3; `convkit list formats`.",
    )


forms = click.option(
    "--forms",
    type=values.WORD,
    metavar="NAME,...",
    help="Forms that convolutions may have too, as chains of smaller ones; `convkit list forms`.",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What may be lost, what is asked for, and how it is measured: the options of these commands."""

    max_drop: float
    min_sqnr: float | None
    budgets: Mapping[str, str | None]
    by_labels: bool
    keep: tuple[str, ...]
    plan: str | None
    tables: str | None
    budget: float
    tune: bool
    threads: int
    seed: int
    as_json: bool
    dry_run: bool
    resume: bool


def settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of Settings; the command gets `settings`."""
    return _with(function, {})


def untabled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Those of a command whose searches are of more than formats, of which no tables are kept; it gets `settings`."""
    return _with(function, {"tables": None})


def unmeasured(function: Callable[..., Any]) -> Callable[..., Any]:
    """Those that concern a command which measures nothing on its target; it gets `settings` too."""
    return _with(function, _MEASURING)


def _with(function: Callable[..., Any], fixed: Mapping[str, Any]) -> Callable[..., Any]:
    """`function` with all options but those that are `fixed`."""

    @functools.wraps(function)
    def with_settings(**others: Any) -> object:  # noqa: ANN401 - click's values
        own = {name: fixed[name] if name in fixed else others.pop(name) for name in _OPTIONS}
        budgets = {name: own.pop(name) for name in _BUDGETS}
        return function(settings=Settings(budgets=budgets, **own), **others)

    for name in reversed(_OPTIONS):
        if name not in fixed:
            _OPTIONS[name](with_settings)
    return with_settings
