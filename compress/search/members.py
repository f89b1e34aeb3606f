"""Members of an elastic network within a limit on time: the most accurate that evolution finds (Cai et al.,
Once-for-all, ICLR 2020, with regularised evolution of Real et al., AAAI 2019, in the place of a predictor of accuracy).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from convkit.compress.training.choice import Choice, Space

_MUTATED = 0.15
"""Chance of every size to be drawn anew."""
_TRIES = 200
"""Draws to find one within the limit."""


@dataclass(frozen=True, slots=True)
class Found:
    """A member, the score that it was measured to have (higher is better), and the seconds it is expected to take."""

    choice: Choice
    score: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Evolution:
    """How many members there are at once, how many of them have children, for how many generations."""

    population: int = 16
    parents: int = 5
    generations: int = 4
    seed: int = 0


@dataclass(slots=True)
class _Search:
    space: Space
    seconds: Callable[[Choice], float]
    score: Callable[[Choice], float]
    limit: float
    chance: random.Random
    known: dict[tuple[object, ...], Found] = field(default_factory=dict)

    def measured(self, choice: Choice) -> Found:
        if choice.key not in self.known:
            self.known[choice.key] = Found(choice, self.score(choice), self.seconds(choice))
        return self.known[choice.key]

    def fits(self, choice: Choice) -> bool:
        return choice.key not in self.known and self.seconds(choice) <= self.limit

    def drawn(self) -> Choice | None:
        """A new random member within the limit; every other one has all its sizes alike."""
        tries = (self.space.drawn(self.chance, compound=bool(at % 2)) for at in range(_TRIES))
        return next(filter(self.fits, tries), None)

    def child(self, parents: Sequence[Found]) -> Choice | None:
        """A new one of two parents, some of whose sizes are drawn anew."""
        for _ in range(_TRIES):
            one, other = (self.chance.choice(parents).choice for _ in range(2))
            made = self.space.crossed(one, other, self.chance, _MUTATED)
            if self.fits(made):
                return made
        return None


def evolve(
    space: Space,
    seconds: Callable[[Choice], float],
    score: Callable[[Choice], float],
    limit: float,
    how: Evolution | None = None,
) -> list[Found]:
    """Members of `space` that take at most `limit` seconds, the best first; none where even the least takes longer."""
    how = how or Evolution()
    search = _Search(space, seconds, score, limit, random.Random(how.seed))  # noqa: S311 - no secret
    if seconds(space.least) > limit:
        return []
    alive = [search.measured(one) for one in (space.least, space.whole) if seconds(one) <= limit]
    while len(alive) < how.population and (one := search.drawn()) is not None:
        alive.append(search.measured(one))
    for _ in range(how.generations):
        parents = _best(alive)[: how.parents]
        alive = list(parents)
        while len(alive) < how.population and (one := search.child(parents)) is not None:
            alive.append(search.measured(one))
    return _best(list(search.known.values()))


def _best(found: Sequence[Found]) -> list[Found]:
    return sorted(found, key=lambda one: (-one.score, one.seconds))
