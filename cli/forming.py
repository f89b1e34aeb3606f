"""Variants of a network whose convolutions stand as chains of smaller ones, for a search to choose among."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from convkit.compress import graph as graphs
from convkit.compress.option import Option
from convkit.compress.plan import LayerPlan
from convkit.compress.search import space as spaces
from convkit.compress.search.problem import Cost

if TYPE_CHECKING:
    from convkit.cli.building import Builder
    from convkit.cli.searchspace import Wishes
    from convkit.compress.form import Chosen, Conv
    from convkit.compress.plan import Plan, Range
    from convkit.compress.search.problem import Formats, Problem
    from convkit.compress.search.sensitivity import Losses
    from convkit.runtimes.latency.table import LatencyTable

SHARES = (0.75, 0.5, 0.25)
"""Of a convolution's weights that a chain has at most."""
_STEP = 8
"""What ranks are multiples of: kernels are made for such numbers of channels."""


@dataclass(frozen=True, slots=True)
class Variant:
    """The network with every convolution that may in `forms`; `plan` has all of it in low precision that may be."""

    forms: Mapping[str, str]
    plan: Plan


def variants(
    builder: Builder, plan: Plan, layers: Collection[str], wishes: Wishes, keep: Collection[str]
) -> list[Variant]:
    """Those of the forms that are wished for, in each of which all convolutions of `layers` stand that may; in low
    precision where any are to be searched."""
    from convkit.compress import factoring, placement

    known = {name: conv for name, conv in factoring.plain(builder.model.graph).items() if name in layers}
    found = [forms for forms in _forms(known, wishes.forms) if forms]
    builder.find({name: list(dict.fromkeys(forms[name] for forms in found if name in forms)) for name in known})
    made = []
    for forms in found:
        placed = placement.place(builder.formed(forms).graph, builder.target, keep) if wishes.formats else {}
        own = {name: plan.layers.get(name, layer) for name, layer in placed.items()}
        made.append(Variant(forms, builder.complete(replace(plan, layers=own, forms=forms))))
    return made


def _forms(known: Mapping[str, Conv], names: Sequence[str]) -> Iterator[dict[str, str]]:
    """For each form and share the convolutions that have it; a chain that is no smaller for it stands once."""
    seen: set[tuple[str, str]] = set()
    for name in names:
        for share in SHARES:
            chosen = {layer: one for layer, conv in known.items() if (one := _chosen(conv, name, share)) is not None}
            found = {layer: str(one) for layer, one in chosen.items() if (layer, str(one)) not in seen}
            seen |= set(found.items())
            yield found


def _chosen(conv: Conv, name: str, share: float) -> Chosen | None:
    from convkit.compress import form as forms
    from convkit.compress import parts

    form: forms.Form = parts.load(forms.FOLDER, name)
    ranks = forms.ranks(form, conv, share, _STEP) if form.fits(conv) else None
    return None if ranks is None else forms.Chosen(name, ranks)


def opened(found: spaces.Options, made: Sequence[Variant]) -> spaces.Options:
    """`found` with every option in every form as well."""
    return {
        name: (
            *plain,
            *(replace(option, form=one.forms[name]) for one in made if name in one.forms for option in plain),
        )
        for name, plain in found.items()
    }


def in_pieces(builder: Builder, chosen: Formats) -> dict[str, Option]:
    """`chosen` of the layers of the network in its forms."""
    found: dict[str, Option] = {}
    for name, option in chosen.items():
        names = builder.pieces(name, option.form) if option.form else [name]
        found |= dict.fromkeys(names, option.plain)
    return found


def ranges(builder: Builder, made: Sequence[Variant], forms: Mapping[str, str]) -> dict[str, Range]:
    """Of the tensors within chains, as the variants know them that have a layer in its form."""
    values = {graphs.key(node): graphs.value(node) for node in graphs.computes(builder.model.graph)}
    found: dict[str, Range] = {}
    for name, form in forms.items():
        known = next((one.plan.ranges for one in made if one.forms.get(name) == form), {})
        inside = [f"{values[name]}_{place}" for place in range(len(builder.pieces(name, form)) - 1)]
        found |= {tensor: known[tensor] for tensor in inside if tensor in known}
    return found


def joined(
    builder: Builder,
    problem: Problem,
    made: Sequence[tuple[Variant, LatencyTable]],
    losses: Losses,
    floating: Option,
) -> Problem:
    """`problem` with what layers cost in the forms of the variants, each with its table."""
    from convkit.compress import placement
    from convkit.compress.search import joined as joining
    from convkit.runtimes.latency import table as latency

    parts = []
    for one, table in made:
        model, target = builder.formed(one.forms), builder.target
        pieces = {name: (form, builder.pieces(name, form)) for name, form in one.forms.items()}
        plain = {piece: tuple(problem.options[name]) for name, (_, names) in pieces.items() for piece in names}
        placed = placement.place(model.graph, target)
        layers = {piece: placed.get(piece, LayerPlan(target.activation, target.weight)) for piece in plain}
        times = spaces.Times(table.layers, latency.edges(table))
        nothing = {piece: dict[Option, float]() for piece in plain}
        own = spaces.problem(model, target, layers, plain, nothing, times, Cost(), floating)
        parts.append(joining.Part(own, pieces))
    return joining.joined(problem, parts, losses)
