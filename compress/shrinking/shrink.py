"""A network made narrower: the channels that are worth least go, and those that read them make up for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from convkit.compress import parts
from convkit.compress.errors import ConvkitError, nearest
from convkit.compress.method import Batches
from convkit.compress.model import Model, clone
from convkit.compress.plan import TAYLOR
from convkit.compress.shrinking import cutting, levels, refitting
from convkit.compress.shrinking.coupling import Coupling, Family, coupling

IMPORTANCE = "compress/importance"
"""Where the ways are by which channels are ranked."""
Worth = Callable[[Model, Coupling, Batches], dict[int, float]]
"""A part there: what each class of channels is worth in a network, by samples where it needs any."""


def narrowed(model: Model, widths: Mapping[str, int], samples: Batches, importance: str = TAYLOR) -> Model:
    """The prepared `model` with the families named at these `widths`, the worthiest channels kept by `samples`.

    Raises ConvkitError for a family there is none of or that is held, and a width that it cannot have.
    """
    coupled = coupling(model.graph)
    check(coupled, widths)
    asked = {name: width for name, width in widths.items() if width != _family(coupled, name).width}
    if not asked:
        return model
    return without(model, gone(coupled, worth(importance)(model, coupled, samples), asked), samples)


def worth(importance: str) -> Worth:
    """What tells what channels are worth by that importance. Raises ConvkitError for one that there is not."""
    found: Worth = parts.load(IMPORTANCE, importance)
    return found


def without(model: Model, gone: frozenset[int], samples: Batches) -> Model:
    """The prepared `model` less the classes `gone` of its coupling, the layers that read them fitted on `samples`; its
    shapes are to be taken anew.
    """
    own = model.replace(graph=clone(model.graph))
    coupled = coupling(own.graph)
    refitting.refit(own, coupled, gone, samples)
    cutting.cut(own.graph, coupled, gone)
    return own


def gone(coupled: Coupling, worth: Mapping[int, float], widths: Mapping[str, int]) -> frozenset[int]:
    """The classes that go for families to have these widths: those worth least, but one of every tensor stays."""
    found: set[int] = set()
    for name, width in widths.items():
        family = _family(coupled, name)
        sizes = dict(zip(family.classes, family.channels, strict=True))
        left = family.width
        for root in sorted(family.classes, key=lambda one: (worth[one], one)):
            if left - sizes[root] >= width:
                found.add(root)
                left -= sizes[root]
    return levels.never_empty(coupled, frozenset(found), worth)


def widths(coupled: Coupling, gone: frozenset[int]) -> dict[str, int]:
    """How many channels each family has without those of the classes `gone`, as far as it has fewer."""
    found = {
        family.name: sum(n for root, n in zip(family.classes, family.channels, strict=True) if root not in gone)
        for family in coupled.families
    }
    return {family.name: found[family.name] for family in coupled.families if found[family.name] != family.width}


def check(coupled: Coupling, widths: Mapping[str, int]) -> None:
    """Raise ConvkitError for widths that cannot be."""
    for name, width in widths.items():
        family, size = _family(coupled, name), math.gcd(*_family(coupled, name).channels)
        if not size <= width <= family.width or width % size:
            each = "" if size == 1 else f" in steps of {size}"
            raise ConvkitError(
                f"{name!r} cannot be {width} wide", hint=f"it may have {size} to {family.width} channels{each}"
            )


def _family(coupled: Coupling, name: str) -> Family:
    for family in coupled.families:
        if family.name == name:
            return family
    if name in coupled.held:
        raise ConvkitError(f"the width of {name!r} must stay: {coupled.held[name]}", hint="leave it out")
    owner = next((family.name for family in coupled.families if name in family.made_by), None)
    if owner is not None:
        raise ConvkitError(f"{name!r} has the width of {owner!r}, which it is coupled to", hint="name that one")
    own = (family.name for family in coupled.families)
    hint = nearest(name, own, "a plan that `convkit shrink` wrote names those that may")
    raise ConvkitError(f"no layer {name!r} whose width may change", hint=hint)
