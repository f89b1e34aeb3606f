"""Families: folders that `convkit train --elastic` left. As a network each is its largest member."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convkit.compress.model import Model, ModelRef, Source

if TYPE_CHECKING:
    from convkit.compress.training.family import Family


def _claims(path: str) -> bool:
    from convkit.compress.training import family

    return family.is_one(path)


def load(ref: ModelRef) -> Model:
    """The whole network, with the weights that it was trained to."""
    return whole(_read(ref))


def whole(found: Family) -> Model:
    """The largest member of a family, as a network of its own."""
    from convkit.compress.training import family

    return family.network(found, found.elastic.member(found.space.whole).network())


def _read(ref: ModelRef) -> Family:
    from convkit.compress.errors import ConvkitError
    from convkit.compress.training import family

    if ref.weights is not None or ref.args or ref.shapes:
        raise ConvkitError(f"{ref.path} is a family, with weights and shapes of its own", hint="leave them out")
    return family.read(ref.path)


PART = Source(_claims, load)
"""The part."""
