"""What each layer costs in each Option: foretold for all at once, then measured truly where the choice hangs on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from convkit.cli import forming
from convkit.cli.checkpoint import Checkpoint
from convkit.cli.progress import Progress
from convkit.compress import graph as graphs
from convkit.compress.option import Option
from convkit.compress.search import budget as choices
from convkit.compress.search import pins
from convkit.compress.search import problem as problems
from convkit.compress.search import space as spaces

if TYPE_CHECKING:
    from torch import Tensor

    from convkit.cli.building import Builder
    from convkit.cli.forming import Variant
    from convkit.cli.precisions import Precision
    from convkit.cli.searchspace import Ground, Means, Space
    from convkit.cli.work import Work
    from convkit.compress.method import Samples
    from convkit.compress.model import Model
    from convkit.compress.plan import Plan
    from convkit.compress.search.problem import Formats, Problem
    from convkit.compress.search.sensitivity import Losses

_POINTS = 8
"""Choices along the front whose layers are looked at."""
PAIRS = 12
"""Pairs of layer and Option that are measured truly at most."""
SAMPLES = 4
"""Samples on which they are."""
_FAR = 10.0
"""What is measured counts for at most so many times what was foretold, or for as small a part of it: a few samples are
not all of them."""


@dataclass(frozen=True, slots=True)
class Sensed:
    """The front half of a Space, which needs no device: `options` of the layers, as they are and in the forms of the
    `variants`, and what each loses alone in them. `run` names what was kept of it.
    """

    plan: Plan
    options: spaces.Options
    pins: Formats
    variants: Sequence[Variant]
    losses: Losses
    run: str


def sensed(means: Means, ground: Ground, precision: Precision) -> Sensed:
    """What layers of `ground` may run in beside float in `precision`, and what they lose by that; nothing is timed."""
    builder, job = ground.builder, means.job
    plan = replace(ground.plan, engine={**ground.knobs.lowered, **precision.knobs})
    found = _options(means, builder.model, precision)
    names = {graphs.key(node) for node in graphs.computes(builder.model.graph)}
    decided = pins.chosen(job.pins, found, names - set(found), precision.floating, job.target.narrower)
    found = {n: (precision.floating, decided[n]) if n in decided else options for n, options in found.items()}
    found = {name: tuple(dict.fromkeys(options)) for name, options in found.items()}
    made = forming.variants(builder, plan, found, means.wishes, job.keep)
    with means.work.stage("sensitivity"):
        asked = forming.opened(found, made)
        run = f"{precision.name} {ground.level}".strip()
        losses = foretold(builder, plan, asked, run, job.seed, means.kept, means.say)
    return Sensed(plan, found, decided, made, losses, run)


def _options(means: Means, model: Model, precision: Precision) -> spaces.Options:
    """What every layer may run in; the formats that pins ask for only those that are pinned."""
    job, wanted, pinned = means.job, means.wishes.formats, means.job.pins
    found = spaces.options(model, job.target, wanted, precision.floating, job.keep)
    asked = (name for name in pins.formats(pinned, job.target.narrower) if spaces.is_searched(name, job.target))
    wider = spaces.options(model, job.target, (*wanted, *asked), precision.floating, job.keep)
    return {name: wider[name] if name in pinned else options for name, options in found.items()}


def foretold(
    builder: Builder,
    plan: Plan,
    options: spaces.Options,
    run: str,
    seed: int,
    kept: Checkpoint,
    say: Progress,
) -> Losses:
    """Loss of every layer alone in each of its options, on the probe of the calibration data, by its labels if it has
    them; kept under the name of the `run`."""
    from convkit.compress.search import sensitivity

    def made() -> Losses:
        say(f"sensitivity of {len(options)} layers in {sum(map(len, options.values()))} options")
        ranged = spaces.with_shared_ranges(builder.model, builder.target, plan)
        known, data = (builder.model, builder.target, ranged, options), builder.data
        drawn = sensitivity.Probes(seed=seed)
        return sensitivity.sensitivity(*known, data.probe, labels=data.labels, chains=builder.chains, probes=drawn)

    return kept.kept(named(run), made, _packed, _unpacked)


def named(run: str) -> str:
    """What the losses of a `run` are kept under."""
    return f"sensitivity {run}"


Met = dict[tuple[str, Option], tuple[float, float]]
"""Loss of a layer in an Option on a few samples: true, and as foretold."""


def sharpened(space: Space, seed: int, kept: Checkpoint, work: Work, say: Progress, met: Met) -> Problem:
    """The problem of `space` with the losses measured truly that its front hangs on most.

    What was foretold is multiplied by the ratio of measured to foretold on the same few samples; where one of these is
    a gain, what was measured to be more than foretold is added. What was `met` in another precision is not measured
    again, for a layer alone loses the same there; what is met here is added.
    """
    strongest = _strongest(space.open, space.precision.floating)

    def made() -> Losses:
        new = {name: tuple(o for o in options if (name, o) not in met) for name, options in strongest.items()}
        new = {name: options for name, options in new.items() if options}
        if new:
            say(f"measuring {sum(map(len, new.values()))} pairs of layer and format")
            work.counts["pairs"] += sum(map(len, new.values()))
            met.update(_met(space, new, seed))
        return {
            name: {o: _sharper(known[name][o].loss, *met[name, o]) for o in options}
            for name, options in strongest.items()
        }

    known = space.problem.options
    losses = (
        kept.kept(f"strongest {space.precision.name} {space.level}".strip(), made, _packed, _unpacked)
        if strongest
        else {}
    )
    costs = {
        (name, option): replace(known[name][option], loss=loss)
        for name, found in losses.items()
        for option, loss in found.items()
    }
    return problems.corrected(space.problem, costs)


def _met(space: Space, pairs: spaces.Options, seed: int) -> Met:
    from convkit.compress.search import sensitivity

    builder, (few, labels) = space.builder, _few(space.builder)
    ranged = spaces.with_shared_ranges(builder.model, builder.target, space.plan)
    asked = builder.model, builder.target, ranged, pairs, few
    drawn, chains = sensitivity.Probes(seed=seed), builder.chains
    told = sensitivity.sensitivity(*asked, labels=labels, chains=chains, probes=drawn)
    true = sensitivity.measured(*asked, labels=labels, chains=chains, calibration=builder.data.probe)
    return {(name, o): (true[name][o], told[name][o]) for name, options in pairs.items() for o in options}


def _strongest(problem: Problem, floating: Option) -> dict[str, tuple[Option, ...]]:
    """The pairs with the largest shares of the loss of choices along the front."""
    shares: dict[tuple[str, Option], float] = {}
    for choice in choices.front(problem, points=_POINTS):
        losses = {pair: abs(problem.options[pair[0]][pair[1]].loss) for pair in choice.formats.items()}
        whole = math.fsum(losses.values())
        for (name, option), loss in losses.items():
            if option != floating and whole > 0:
                shares[name, option] = shares.get((name, option), 0.0) + loss / whole
    found = sorted((pair for pair, share in shares.items() if share > 0), key=lambda pair: -shares[pair])[:PAIRS]
    names = [name for name in problem.options if any(name == owner for owner, _ in found)]
    return {name: tuple(option for owner, option in found if owner == name) for name in names}


def _few(builder: Builder) -> tuple[list[Samples], list[Tensor] | None]:
    """The first samples of the probe, and their labels; a whole batch where the network fixes its size."""
    data = builder.data
    most = SAMPLES if builder.model.batch is None else None
    labels = None if data.labels is None else [data.labels[0][:most]]
    return [{name: tensor[:most] if tensor.ndim else tensor for name, tensor in data.probe[0].items()}], labels


def _sharper(loss: float, true: float, told: float) -> float:
    """`loss` as foretold on all samples, given what is true and what was told on a few."""
    if true * told > 0:
        return loss * min(max(true / told, 1 / _FAR), _FAR)
    return loss + max(true - told, 0.0)


def _packed(losses: Losses) -> dict[str, dict[str, float]]:
    return {name: {str(option): loss for option, loss in known.items()} for name, known in losses.items()}


def _unpacked(found: Mapping[str, Mapping[str, Any]]) -> Losses:
    return {name: {Option.parse(text): float(loss) for text, loss in known.items()} for name, known in found.items()}
