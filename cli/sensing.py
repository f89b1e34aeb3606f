"""What each layer costs in each Option: foretold for all at once, then measured truly where the choice hangs on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from convkit.cli.checkpoint import Checkpoint
from convkit.cli.progress import Progress
from convkit.compress.option import Option
from convkit.compress.search import budget as choices
from convkit.compress.search import problem as problems
from convkit.compress.search import space as spaces

if TYPE_CHECKING:
    from convkit.cli.building import Builder
    from convkit.cli.precisions import Precision
    from convkit.cli.searchspace import Space
    from convkit.cli.work import Work
    from convkit.compress.method import Samples
    from convkit.compress.plan import Plan
    from convkit.compress.search.problem import Problem
    from convkit.compress.search.sensitivity import Losses

_POINTS = 8
"""Choices along the front whose layers are looked at."""
PAIRS = 24
"""Pairs of layer and Option that are measured truly at most."""
SAMPLES = 4
"""Samples on which they are."""
_FAR = 10.0
"""What is measured counts for at most so many times what was foretold, or for as small a part of it: a few samples are
not all of them."""


def foretold(
    builder: Builder,
    plan: Plan,
    options: spaces.Options,
    precision: Precision,
    seed: int,
    kept: Checkpoint,
    say: Progress,
) -> Losses:
    """Loss of every layer alone in each of its options, on the probe of the calibration data."""
    from convkit.compress.search import sensitivity

    def made() -> Losses:
        say(f"sensitivity of {len(options)} layers in {sum(map(len, options.values()))} options")
        ranged = spaces.with_shared_ranges(builder.model, builder.target, plan)
        return sensitivity.sensitivity(builder.model, builder.target, ranged, options, builder.data.probe, seed=seed)

    return kept.kept(f"sensitivity {precision.name}", made, _packed, _unpacked)


def sharpened(space: Space, seed: int, kept: Checkpoint, work: Work, say: Progress) -> Problem:
    """The problem of `space` with the losses measured truly that its front hangs on most.

    What was foretold is multiplied by the ratio of measured to foretold on the same few samples.
    """
    from convkit.compress.search import sensitivity

    strongest = _strongest(space.open, space.precision.floating)

    def made() -> Losses:
        say(f"measuring {sum(map(len, strongest.values()))} pairs of layer and format")
        work.counts["pairs"] += sum(map(len, strongest.values()))
        builder, few = space.builder, _few(space.builder)
        ranged = spaces.with_shared_ranges(builder.model, builder.target, space.plan)
        told = sensitivity.sensitivity(builder.model, builder.target, ranged, strongest, few, seed=seed)
        true = sensitivity.measured(
            builder.model, builder.target, ranged, strongest, few, calibration=builder.data.probe
        )
        return {
            name: {option: _ratio(true[name][option], told[name][option]) for option in known}
            for name, known in strongest.items()
        }

    ratios = kept.kept(f"strongest {space.precision.name}", made, _packed, _unpacked) if strongest else {}
    known = space.problem.options
    costs = {
        (name, option): replace(known[name][option], loss=known[name][option].loss * ratio)
        for name, found in ratios.items()
        for option, ratio in found.items()
    }
    return problems.corrected(space.problem, costs)


def _strongest(problem: Problem, floating: Option) -> dict[str, tuple[Option, ...]]:
    """The pairs with the largest shares of the loss of choices along the front."""
    shares: dict[tuple[str, Option], float] = {}
    for choice in choices.front(problem, points=_POINTS):
        for name, option in choice.formats.items():
            if option != floating and choice.cost.loss > 0:
                share = problem.options[name][option].loss / choice.cost.loss
                shares[name, option] = shares.get((name, option), 0.0) + share
    found = sorted((pair for pair, share in shares.items() if share > 0), key=lambda pair: -shares[pair])[:PAIRS]
    names = [name for name in problem.options if any(name == owner for owner, _ in found)]
    return {name: tuple(option for owner, option in found if owner == name) for name in names}


def _few(builder: Builder) -> list[Samples]:
    """The first samples of the probe; a whole batch where the network fixes its size."""
    (first, *_) = builder.data.probe
    free = all(spec.shape and isinstance(spec.shape[0], str) for spec in builder.model.inputs)
    return [{name: tensor[:SAMPLES] for name, tensor in first.items()}] if free else [first]


def _ratio(true: float, told: float) -> float:
    return min(max(true / told, 1 / _FAR), _FAR) if true > 0 and told > 0 else 1.0


def _packed(losses: Losses) -> dict[str, dict[str, float]]:
    return {name: {str(option): loss for option, loss in known.items()} for name, known in losses.items()}


def _unpacked(found: Mapping[str, Mapping[str, Any]]) -> Losses:
    return {name: {Option.parse(text): float(loss) for text, loss in known.items()} for name, known in found.items()}
