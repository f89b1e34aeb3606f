"""What is asked of a search on the command line, checked before anything is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from convkit.cli import batches, precisions, timing
from convkit.cli.searchspace import Wishes
from convkit.compress import apply, budget, form, labels, metric, parts
from convkit.compress import format as number_formats
from convkit.compress import graph as graphs
from convkit.compress.errors import ConvkitError
from convkit.compress.plan import TAYLOR
from convkit.compress.search import criterion as criteria
from convkit.compress.search import pins, remedies
from convkit.compress.search import tables as saved
from convkit.compress.search.criterion import DISTANCE, Criterion
from convkit.compress.shrinking import shrink

if TYPE_CHECKING:
    from convkit.cli.quantizing import Job
    from convkit.compress.budget import Budget
    from convkit.compress.method import Method
    from convkit.compress.model import Model
    from convkit.compress.plan import Plan

_LEAST = 4
"""Samples without which a search says nothing."""


def wishes(
    job: Job,
    formats: str | None,
    tables: str | None,
    budgets: Mapping[str, str | None],
    *,
    by_labels: bool,
    forms: str | None = None,
    narrow: int = 0,
    importance: str = TAYLOR,
) -> Wishes | None:
    """What is asked of a search: None where none is; no formats at all where they are "". `narrow`: what widths of
    layers are multiples of, where these are searched, `importance`: by what channels are ranked then.

    Raises ConvkitError for what cannot be, or contradicts itself.
    """
    given = tuple(budget.parse(name, text) for name, text in budgets.items() if text is not None)
    if tables is not None:
        if forms is not None or narrow:
            raise ConvkitError("--tables are of formats alone", hint="search forms and widths without them")
        if by_labels:
            raise ConvkitError("--tables says whether labels count", hint="leave out --by-labels")
        _refuse_uniform(job, "--tables has")
        return _from_tables(job, formats, tables, given)
    if formats is None and not given and forms is None and not narrow:
        if by_labels:
            raise ConvkitError("--by-labels says how to search, not for what", hint="give --formats or a budget")
        return None
    _refuse_uniform(job, "--formats and budgets have")
    parts.path(shrink.IMPORTANCE, importance, ".py")
    names = [job.target.weight] if formats is None else _names(formats, "--formats") if formats else []
    layers, whole = precisions.asked(job.target, tuple(dict.fromkeys(names)))
    _check(job, layers)
    for name in pins.formats(job.pins):
        number_formats.load(name)
    _check_pinned(job, job.pins)
    criterion, asked = _criterion(job) if by_labels else DISTANCE, () if forms is None else _forms(forms)
    return Wishes(layers, given, whole, criterion, forms=asked, narrow=narrow, importance=importance)


def _refuse_uniform(job: Job, searching: str) -> None:
    """Refuse formats and rounding for all layers alike beside a search, which decides them layer by layer."""
    if job.precision is not None or job.methods:
        hint = "leave out --precision and --method: the search tries learned rounding by itself"
        raise ConvkitError(f"{searching} the format of each layer searched", hint=hint)


def _names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise ConvkitError(f"{option} {text!r} has an empty name in it", hint="write one comma between two names")
    return names


def _forms(text: str) -> tuple[str, ...]:
    names = dict.fromkeys(_names(text, "--forms"))
    for name in names:
        parts.path(form.FOLDER, name, ".py")
    return tuple(names)


def _check(job: Job, names: tuple[str, ...]) -> None:
    """Refuse a search that cannot be: in formats that the target lacks, or on too few samples."""
    for name in names:
        if name in job.target.formats and job.target.formats[name].missing:
            has = ", ".join(other for other, runs in job.target.formats.items() if not runs.missing)
            raise ConvkitError(f"{job.target.name} has no {name}", hint=f"it has {has}; others only save storage")
    if len(job.data) < _LEAST:
        held = "a quarter of them is held back to measure on"
        raise ConvkitError(
            f"the data has {len(job.data)} samples, too few for a search", hint=f"give at least {_LEAST}, for {held}"
        )


def _check_pinned(job: Job, given: pins.Pins) -> None:
    """Refuse pins of layers that do not exist, as the network is given and as it is prepared, before anything runs.

    Those of layers that a plan makes itself, of other widths and forms, are looked at when they are made.
    """
    if job.plan is None or job.plan.forms or job.plan.widths:
        return
    known = _named(job.model)
    if not known.issuperset(given):
        known |= _named(apply.prepare(job.model, tuple(dict.fromkeys((*remedies.EXACT, *_blind(job.plan))))))
    pins.chosen(dict.fromkeys(given, pins.IN_FLOAT), {}, known)


def _blind(plan: Plan) -> Iterator[str]:
    """Methods of the plan that make layers without having seen data, such as that which spreads an image's channels."""
    for name in plan.methods:
        method: Method = parts.load("compress/methods", name)
        if method.before and not method.sees:
            yield name


def _named(model: Model) -> set[str]:
    return {graphs.key(node) for node in graphs.computes(model.graph)}


def _from_tables(job: Job, formats: str | None, file: str, given: tuple[Budget, ...]) -> Wishes:
    if formats is not None:
        raise ConvkitError("--tables decides which formats there are", hint="leave out --formats, or the tables")
    if job.keep:
        raise ConvkitError("--keep says nothing to --tables", hint="pin the layers to float in a --plan")
    found = saved.read(file, job.model.digest)
    if found.target != job.target.name:
        raise ConvkitError(f"{file} holds tables for {found.target}", hint=f"give --target {found.target}")
    others = saved.beside(file, found)
    for one in (found, *others):
        timing.check_device(job, file, one)
    if found.criterion.by_labels and _criterion(job) != found.criterion:
        raise ConvkitError(f"{file} holds tables of {found.criterion.name}, the labels are for {_criterion(job).name}")
    return Wishes((), given, criterion=found.criterion, tables=found, others=others)


def _criterion(job: Job) -> Criterion:
    """By what the labels of the data judge. Raises ConvkitError where there are none, or they do not fit the output."""
    size = batches.batching(job.model, job.data).size
    few = job.data.batch(range(min(size, len(job.data))))
    if few.labels is None:
        raise ConvkitError(
            "a search by labels needs labels, the data has none",
            hint="add an array `labels`, give --labels, or search without --by-labels",
        )
    output = metric.first(batches.run(job.model, few, size))
    found, axis = criteria.of_labels(few.labels, output), metric.class_axis(output)
    if found is criteria.CROSS_ENTROPY:
        metric.require_classes(output, axis)
    assert job.data.labels is not None  # noqa: S101 - a part of the data has some
    labels.check(job.data.labels, output, axis)
    return found
