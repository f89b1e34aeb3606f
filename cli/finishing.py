"""The end of a search: what is kept, rounded by learning. Its kernels are the same, so that it takes the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from convkit.cli import building, contest

if TYPE_CHECKING:
    from convkit.cli.contest import Candidate, Standing
    from convkit.cli.laboratory import Lab
    from convkit.compress.search.criterion import Criterion
    from convkit.runtimes.bench.measure import Result

SHARE = 0.4
"""Of the seconds for measuring, on top of them."""


@dataclass(frozen=True, slots=True)
class _Nearer:
    """Chooses what is more accurate, as the engine computes it."""

    criterion: Criterion

    def pick(self, fit: Sequence[Candidate], results: Mapping[str, Result]) -> Candidate | None:
        of_float = results[contest.ORIGINAL].metrics
        return min(fit, key=lambda one: self.criterion.loss(results[one.name].metrics, of_float), default=None)

    def may_be_slower(self, _results: Mapping[str, Result]) -> bool:
        """That it is faster was found before."""
        return True


def learned(standing: Standing, lab: Lab) -> Standing:
    """`standing` with what is kept as learned rounding makes it, where that is nearer to the original on the engine."""
    kept = standing.kept
    if kept is None or building.with_learned_rounding(kept.plan) == kept.plan:
        return standing
    plan = building.with_learned_rounding(kept.plan)
    name = f"{kept.name}, learned rounding"
    lab.say(f"building {name}")
    path = lab.kept_file(plan)
    if path.read_bytes() == kept.path.read_bytes():
        return standing
    # That the engine computes what was simulated is known of the network kept; what comes nearer than that does, too.
    made = contest.Candidate(name, plan, path, kept.simulated)
    arena = replace(lab.arena, budget=lab.arena.budget * SHARE)
    again = contest.hold(arena, [kept, made], lab.say, _Nearer(lab.space.criterion))
    if again.kept is not made:
        return standing
    results = {one.name: one for one in (*standing.results, *again.results)}
    return replace(again, results=tuple(results.values()), candidates=(*standing.candidates, made))
