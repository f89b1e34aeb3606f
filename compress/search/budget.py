"""The choice under a budget, exact: an Option for every layer, found by integer programming with HiGHS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from convkit.compress.search import _program
from convkit.compress.search.problem import Choice, Formats, Problem, meets

_STEP = 2e-5
"""Points of a front lie so far apart at least, relative to what they take beyond the least of every layer."""


def solve(
    problem: Problem, limits: Mapping[str, float], minimise: str = "loss", exclude: Sequence[Formats] = ()
) -> Choice | None:
    """The choice with the least of `minimise` in which every other quantity keeps to its limit; None if none does.

    Among equals the one that takes least of the first limited quantity, or of seconds where nothing is limited. Plans
    that agree with one in `exclude`, in the layers that this names, are no choice.
    """
    second = _second(minimise, limits)
    program = _program.build(problem, {minimise, second, *limits}, exclude)
    return _program.minimum(program, minimise, second, limits)


def nearest(
    problem: Problem, quantity: str, limits: Mapping[str, float] | None = None, exclude: Sequence[Formats] = ()
) -> Choice | None:
    """The choice with the least of `quantity` that can be reached, within the `limits` of others; of those the best."""
    return solve(problem, limits or {}, quantity, exclude)


def closest(problem: Problem, limits: Mapping[str, float]) -> Choice | None:
    """The choice that takes least of the first limited quantity whose limit is out of reach, within those before it.

    Where all are within reach, the least of the last one. None where the problem has no choice at all.
    """
    kept: dict[str, float] = {}
    found = None
    for quantity, limit in limits.items():
        found = nearest(problem, quantity, kept)
        if found is None or not meets(found.cost[quantity], limit):
            return found
        kept[quantity] = limit
    return found


def front(
    problem: Problem,
    quantity: str = "seconds",
    points: int | None = None,
    limits: Mapping[str, float] | None = None,
    exclude: Sequence[Formats] = (),
) -> list[Choice]:
    """Choices that none beats in both loss and `quantity`, from the least loss to the least of `quantity`.

    All of them, or about `points`, each the best within one of as many evenly spaced limits.
    """
    return list(walk(problem, quantity, points, limits, exclude))


def walk(
    problem: Problem,
    quantity: str = "seconds",
    points: int | None = None,
    limits: Mapping[str, float] | None = None,
    exclude: Sequence[Formats] = (),
) -> Iterator[Choice]:
    """The front, point by point as they are found."""
    program = _program.build(problem, {"loss", quantity, *(limits or {})}, exclude)
    last = _program.minimum(program, quantity, "loss", limits or {})
    found = _program.minimum(program, "loss", quantity, limits or {})
    if last is None or found is None:
        return
    low = last.cost[quantity]
    grid = _grid(low, found.cost[quantity], points)
    while found is not None and found.cost[quantity] > low:
        better, under = found, found.cost[quantity] - _STEP * (found.cost[quantity] - program.least[quantity])
        limit = max((limit for limit in grid if limit < under), default=under)
        found = _program.minimum(program, "loss", quantity, {**(limits or {}), quantity: max(limit, low)})
        if found is None or found.cost.loss > better.cost.loss:
            yield better
    yield last


def _grid(low: float, high: float, points: int | None) -> list[float]:
    """Limits from `low` to `high`; none where every point is wanted."""
    return [low + (high - low) * step / (points - 1) for step in range(points)] if points and points > 1 else []


def _second(minimise: str, limits: Mapping[str, float]) -> str:
    """The quantity that decides among equals."""
    others = [quantity for quantity in limits if quantity != minimise]
    return others[0] if others else "seconds" if minimise == "loss" else "loss"
