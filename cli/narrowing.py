"""Narrower networks for a search to begin from: levels on the way from the network's own widths to the least."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from convkit.cli import show, timing
from convkit.compress.errors import ConvkitError

if TYPE_CHECKING:
    from convkit.cli.building import Builder
    from convkit.cli.searchspace import Ground, Means
    from convkit.compress.shrinking.coupling import Coupling
    from convkit.compress.shrinking.levels import Again, Level, Times

SHARES = (0.75, 0.5, 0.25)
"""Of every family's channels, in the networks that are measured to tell what layers of other widths take."""
_ALONE = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
"""Levels, as parts of the network's own time, where nothing else makes it faster."""
_LESS = (0.3, 0.2, 0.1)
"""Those that small files or few operations may ask for."""
_BESIDE = (0.85, 0.7, 0.5, 0.3)
"""Those that are searched further, in formats and forms."""
_WITHIN = (1.0, 0.95)
"""Parts of a limit on time at which there are levels as well: what is expected is not what is measured."""


def grounds(means: Means, ground: Ground) -> Iterator[Ground]:
    """`ground`, and the same with narrower layers. Raises ConvkitError where no channel of the network may go."""
    from convkit.compress import placement
    from convkit.compress.shrinking import shrink

    yield ground
    builder, wishes = ground.builder, means.wishes
    with means.work.stage("channels"):
        means.say("what channels are worth")
        coupled, worth = builder.channels
    if not coupled.families:
        first = next(iter(coupled.held.items()), ("", "it has no layers"))
        raise ConvkitError(f"no channel of {means.job.model.name} may go", hint=f"{first[0]}: {first[1]}".strip(": "))
    if coupled.held:
        show.note(_stay(coupled.held))
    found = list(_levels(means, ground, coupled, worth))
    if not found and not (wishes.formats or wishes.forms):
        raise ConvkitError(f"no layer can be narrower in steps of {wishes.narrow}", hint="give a smaller --step")
    for level, name in found:
        widths = shrink.widths(coupled, level.gone)
        means.say(f"{name}: {_said(coupled, widths)}")
        narrow = builder.of(builder.narrowed(widths), widths)
        layers = placement.place(narrow.model.graph, means.job.target, means.job.keep)
        known = {key: ground.plan.layers.get(key, layer) for key, layer in layers.items()} if wishes.formats else {}
        plan = narrow.complete(replace(ground.plan, layers=known, ranges={}, widths=widths))
        yield replace(ground, builder=narrow, plan=plan, layers=layers, level=name)


def _stay(held: Mapping[str, str]) -> str:
    """Which layers keep their channels, and why, by reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in held.items():
        reasons.setdefault(reason, []).append(name)
    parts = (
        f"{', '.join(names[:_NAMED])}{f' and {len(names) - _NAMED} more' if len(names) > _NAMED else ''} ({reason})"
        for reason, names in reasons.items()
    )
    return f"these keep all their channels: {'; '.join(parts)}"


_NAMED = 3


def _levels(means: Means, ground: Ground, coupled: Coupling, worth: Mapping[int, float]) -> Iterator[tuple[Level, str]]:
    from convkit.compress.shrinking import levels

    with means.work.stage("latency of widths"):
        times, whole = _times(means, ground, coupled, worth)
    shares = _shares(means, whole)
    again = _again(means, ground.builder, coupled, worth)
    found = levels.levels(ground.builder.model.graph, coupled, worth, times, whole, means.wishes.narrow, again)
    way = list(_down_to(found, min(shares) * whole))[1:]
    seen: set[frozenset[int]] = set()
    for share in shares:
        level = next((level for level in way if level.seconds <= share * whole), None)
        if level is None or level.gone in seen:
            continue
        seen.add(level.gone)
        yield replace(level, gone=levels.never_empty(coupled, level.gone, worth)), f"narrower, {share:.3g}x"
    if not seen and way:
        yield replace(way[-1], gone=levels.never_empty(coupled, way[-1].gone, worth)), "narrowest"


def _down_to(way: Iterator[Level], seconds: float) -> Iterator[Level]:
    """Levels up to the first that takes no more: each costs a look at the network."""
    for level in way:
        yield level
        if level.seconds <= seconds:
            return


def _again(means: Means, builder: Builder, coupled: Coupling, known: Mapping[int, float]) -> Again:
    """What channels are worth where others have gone, measured on the network that is left."""
    from convkit.compress.shrinking import levels, shrink
    from convkit.compress.shrinking.coupling import coupling

    worth = shrink.worth(builder.importance)

    def again(gone: frozenset[int]) -> Mapping[int, float]:
        widths = shrink.widths(coupled, gone)
        with means.work.stage("channels"):
            means.say(f"what channels are worth: {_said(coupled, widths)}")
            model = builder.narrowed(widths)
            narrow = coupling(model.graph)
            left = shrink.gone(coupled, known, widths)
            return levels.renamed(coupled, left, narrow, worth(model, narrow, builder.data.probe), known)

    return again


def _shares(means: Means, whole: float) -> Sequence[float]:
    wishes = means.wishes
    limits = [one for one in wishes.budgets if one.quantity == "seconds"]
    if wishes.formats or wishes.forms:
        return _BESIDE
    if not wishes.budgets:
        return _ALONE
    if not limits:
        return (*_ALONE, *_LESS)
    share = min(one.absolute(whole) for one in limits) / whole
    return [share * part for part in _WITHIN] + [one for one in _ALONE if one < share][:1]


def _times(means: Means, ground: Ground, coupled: Coupling, worth: Mapping[int, float]) -> tuple[Times, float]:
    """What layers take at parts of their products, and the network as it is."""
    from convkit.compress.shrinking import levels, shrink
    from convkit.runtimes.latency.table import predict

    builder: Builder = ground.builder
    float_plan = replace(ground.plan, layers={}, ranges={}, engine=ground.knobs.lowered)
    shrunk = [levels.uniform(coupled, worth, share, means.wishes.narrow) for share in SHARES]
    shrunk = list(dict.fromkeys(levels.never_empty(coupled, gone, worth) for gone in shrunk))
    widths = [shrink.widths(coupled, gone) for gone in shrunk]
    tables = timing.tables(means, builder, float_plan, [replace(float_plan, widths=one) for one in widths])
    known: dict[str, list[tuple[float, float]]] = {
        name: [(1.0, seconds[tables[0].floating])] for name, seconds in tables[0].layers.items()
    }
    for gone, table in zip(shrunk, tables[1:], strict=True):
        parts = levels.parts(builder.model.graph, coupled, gone)
        for name, seconds in table.layers.items():
            if name in known and name in parts:
                known[name].append((parts[name], seconds[table.floating]))
    return {name: sorted(points) for name, points in known.items()}, predict(tables[0], {})


def _said(coupled: Coupling, widths: Mapping[str, int]) -> str:
    whole = sum(family.width for family in coupled.families)
    left = sum(widths.get(family.name, family.width) for family in coupled.families)
    return f"{left} of {whole} channels"
