"""What `convkit quantize --formats …` does: for each layer the formats of weight and activations, by measured accuracy
and latency under one budget.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from convkit.cli import building, contest, finishing, narrowing, quantizing, searchspace, sensing
from convkit.cli.batches import indices_in_range, split
from convkit.cli.checkpoint import Checkpoint
from convkit.cli.laboratory import Lab, computed
from convkit.cli.progress import Progress
from convkit.cli.quantizing import Job
from convkit.cli.referee import Referee
from convkit.cli.searchspace import Ground, Means, Space, Wishes
from convkit.cli.sensing import Sensed
from convkit.cli.work import Work
from convkit.compress.errors import ConvkitError
from convkit.compress.plan import Plan
from convkit.compress.search import budget as choices
from convkit.compress.search import refine as refining
from convkit.compress.search import remedies, seen
from convkit.compress.search.problem import pinned
from convkit.compress.search.refine import Refined, Trial, Wish

if TYPE_CHECKING:
    from convkit.compress.data import Data
    from convkit.compress.search.problem import Choice, Formats
    from convkit.compress.search.remedies import Attempt, Task

GLANCE = 8
"""Held-back samples that choices are compared on; those that end the search are judged on all."""
FRONT = 24
"""Points of the predicted front."""
ROUNDS = 3
"""How often candidates are measured and tables corrected; refine.PATIENCE times as often where they do not agree."""
HUNTS = 3
"""Of many widths, those whose finalists stand side by side at the end."""
_WORTH = 0.03
"""Of the most that any choice on the front loses: what gains less is worth no further round."""
_ALIKE = 1.3
"""So far apart may two promised losses lie that either may be the less one; one by labels may be less than nothing."""
ROOM = {"searched, with room": 0.97}
ROOMS = {
    "searched in low precision": 1.0,
    "searched, with little room": 0.98,
    "searched, with room": 0.96,
    "searched, with more room": 0.9,
}
"""Parts of the limits within which other finalists lie, for where the last measurement puts the first beyond them; of
time, which is never measured twice alike, several: how far apart two measurements lie is not known before. The network
in float is within its own time, and the best there is: what else is stands beside it.
"""


@dataclass(frozen=True, slots=True)
class Begun:
    """What a search is before its target is needed: remedies `tried`, the one `chosen`, and the `ground` that this
    makes; the `task` judges by all samples `held` back, `glance` by the first of them.
    """

    held: Data
    task: Task
    glance: Task
    tried: Sequence[Attempt]
    chosen: Attempt
    ground: Ground


@dataclass(frozen=True, slots=True)
class Hunt:
    """The search of one Space, ended."""

    lab: Lab
    front: Sequence[Choice]
    wish: Wish
    refined: Refined
    roomy: Mapping[str, Trial]
    """The best choices that do not lie just beside a limit, by name."""


@dataclass(frozen=True, slots=True)
class Searched:
    """The outcome, and what tells of the way there: the hunt that led to it, and those of other precisions.

    `missed`: the budgets that the network kept does not keep to. `over`: the networks measured that exceed one; None
    where nothing is limited.
    """

    outcome: quantizing.Outcome
    hunt: Hunt
    others: Sequence[Hunt]
    missed: tuple[str, ...]
    over: frozenset[str] | None
    work: Work

    @property
    def space(self) -> Space:
        return self.hunt.lab.space


def search(job: Job, wishes: Wishes, say: Progress, kept: Checkpoint | None = None) -> Searched:
    """The most accurate network within the budgets, or the fastest that is as good where there are none.

    There always is one; the original where nothing else is surely faster and as good. What is `kept` of a run that was
    killed is not done again.
    """
    with indices_in_range(job.model), tempfile.TemporaryDirectory(prefix="convkit-") as folder:
        return _searched(Means(job, wishes, say, kept or Checkpoint(), Path(folder), Work()))


def sensed(job: Job, wishes: Wishes, say: Progress, kept: Checkpoint) -> tuple[Ground, list[Sensed]]:
    """The ground of that search, and what its layers lose alone, in each precision; nothing is timed. All that the
    search would find as well is `kept` as it would be.
    """
    with indices_in_range(job.model), tempfile.TemporaryDirectory(prefix="convkit-") as folder:
        means = Means(_with_pins(job, wishes), wishes, say, kept, Path(folder), Work())
        ground = _begun(means).ground
        return ground, [sensing.sensed(means, ground, precision) for precision in wishes.precisions]


def _searched(means: Means) -> Searched:
    means = replace(means, job=_with_pins(means.job, means.wishes))
    begun = _begun(means)
    job, work, held, task, tried = means.job, means.work, begun.held, begun.task, begun.tried
    arena = quantizing.arena(job, held, begun.chosen, tried, means.folder)
    ground = begun.ground
    with work.stage("knobs"):
        ground = replace(ground, knobs=searchspace.tuned(means, ground, arena.original, held))
    arena = quantizing.tuned(arena, job, ground.knobs)
    arena = replace(arena, asked=_asked(means.wishes))
    spaces = searchspace.each(means, narrowing.grounds(means, ground) if means.wishes.narrow else (ground,))
    worth = _worth_a_hunt(means, list(spaces)) if means.wishes.others else spaces
    hunts = [_hunt(means, Lab(space, task, begun.glance, arena, means.kept, means.say)) for space in worth]
    with work.stage("final"):
        return _ended(means, _promising(hunts) if means.wishes.narrow else hunts, tried)


def _begun(means: Means) -> Begun:
    job = means.job
    data, held = split(job.data, job.seed)
    task, glance = _tasks(means, data, held)
    with means.work.stage("remedies"):
        tried = quantizing.attempts(_start(job, means.wishes), task, len(held), means.say, means.kept)
    chosen = remedies.best(tried, task.rank)
    # Remedies are scored with layers in float as they are, whatever precision a plan sets.
    means.kept.add("scores", {computed(replace(chosen.plan, engine={})): dict(chosen.scores)})
    return Begun(held, task, glance, tried, chosen, searchspace.ground(means, task, chosen))


def _asked(wishes: Wishes) -> str:
    """What networks are made of, for people; "" where that is the target's own format."""
    others = [*(["narrower layers"] if wishes.narrow else []), *(["chains of convolutions"] if wishes.forms else [])]
    return " and ".join([*wishes.formats, *others]) if others else ""


def _promising(hunts: Sequence[Hunt]) -> list[Hunt]:
    """Those whose best keeps to the limits at the least cost, or is nearest to them."""
    ranked = sorted(hunts, key=lambda hunt: hunt.wish.rank(hunt.refined.best.measured))
    chosen = [id(hunt) for hunt in ranked[:HUNTS]]
    return [hunt for hunt in hunts if id(hunt) in chosen]


def _worth_a_hunt(means: Means, spaces: Sequence[Space]) -> Sequence[Space]:
    """Of an earlier search's precisions those whose tables promise about the least loss within the budgets."""
    promised = [_promised(means, space) for space in spaces]
    least = min((loss for loss in promised if loss is not None), default=None)
    if not means.wishes.budgets or least is None:
        return spaces
    return [
        space
        for space, loss in zip(spaces, promised, strict=True)
        if loss is not None and loss <= least + (_ALIKE - 1) * abs(least)
    ]


def _promised(means: Means, space: Space) -> float | None:
    """Loss of the best choice within the budgets; None where there is none."""
    known = means.wishes.known(space.precision)
    if known is None:
        return None
    limits = {budget.quantity: budget.absolute(space.original[budget.quantity]) for budget in means.wishes.budgets}
    problem = pinned(known.corrected(), space.pins)
    choice = seen.best(problem, known.trials, limits)
    return None if choice is None else seen.cost(known.trials, choice).loss


def _with_pins(job: Job, wishes: Wishes) -> Job:
    """`job` with the pins of the search that made the tables, where it has no plan of its own; of its own plan all but
    the precision of float, which is what is searched.
    """
    from convkit.compress import plan as plans

    if job.plan is not None:
        engine = {knob: value for knob, value in job.plan.engine.items() if knob != "precision"}
        return replace(job, plan=replace(job.plan, engine=engine))
    if wishes.tables is None or not wishes.tables.plan:
        return job
    pins = plans.loads(wishes.tables.plan).pins
    return replace(job, plan=plans.Plan(job.model.digest, job.target.name, pins=pins)) if pins else job


def _tasks(means: Means, data: Data, held: Data) -> tuple[Task, Task]:
    """The job judged on all samples held back, and at a glance: on the first of them, but by labels on all, for a class
    that flips says little of a loss.
    """
    job, work, criterion = replace(means.job, plan=None), means.work, means.wishes.criterion
    whole = work.counting(quantizing.task(job, data, held, criterion))
    count = max(GLANCE, job.model.batch or 1)
    if criterion.by_labels or len(held) <= count:
        return whole, whole
    few = quantizing.task(job, data, held.batch(range(count)), criterion)
    return whole, work.counting(few, "glances")


def _hunt(means: Means, lab: Lab) -> Hunt:
    space, tables = lab.space, means.wishes.known(lab.space.precision)
    if space.level:
        lab = replace(lab, space=_based(lab))
        space = lab.space
    with means.work.stage("rounds"):
        front = list(choices.front(space.open, points=FRONT))
        lab.expect(front)
        if not front:
            raise ConvkitError("the pins allow no choice at all", hint="pin fewer layers")
        known = lab.whole if tables is None else [one for one in tables.trials if _is_open(one, space.pins)]
        wish = _wish(means, lab, front)
        refined = refining.refine(space.open, lab.measure, wish, ROUNDS, known)
    if refined.factor is not None:
        means.say.found(f"choices take {refined.factor:.2f}x what the latency table says of them")
    rooms = ROOMS if wish.rooms else ROOM
    return Hunt(
        lab, front, wish, refined, {name: refining.with_room(refined, wish, part) for name, part in rooms.items()}
    )


def _based(lab: Lab) -> Space:
    """The space of a narrower network with what it loses by that alone, truly, in the cost of all its choices."""
    space = lab.space
    alone = lab.loss(space.plan_of({**dict.fromkeys(space.options, space.precision.floating), **space.pins}))
    fixed = replace(space.problem.fixed, loss=space.problem.fixed.loss + alone)
    return replace(space, problem=replace(space.problem, fixed=fixed))


def _is_open(trial: Trial, pins: Formats) -> bool:
    """Whether the trial keeps to the pins."""
    return all(trial.formats[name] == option for name, option in pins.items())


def _start(job: Job, wishes: Wishes) -> Job:
    """`job` with the plan that the search begins with, where there is one: the tables', else the one that is given.

    What its methods learn is not learnt again for every network that is built on the way; the precision is what is
    searched.
    """
    from convkit.compress import plan as plans

    plan = job.plan if wishes.tables is None else plans.loads(wishes.tables.plan)
    if plan is None or not plan.changes:
        return replace(job, plan=None)
    return replace(job, plan=building.without_learning(plan))


def _wish(means: Means, lab: Lab, front: Sequence[Choice]) -> Wish:
    """The budgets as limits; without any, the least time up to the loss at which networks still are as good."""
    budgets, whole = means.wishes.budgets, lab.space.original
    same = {"loss": lab.space.criterion.same(lab.task.of_float)}
    if not budgets:
        return Wish({"loss": lab.good_loss(front)}, minimise="seconds", same=same)
    limits = {budget.quantity: budget.absolute(whole[budget.quantity]) for budget in budgets}
    worth = _WORTH * max(choice.cost.loss for choice in front)
    return Wish(limits, same=same, worth=worth, rooms=tuple(ROOMS.values()) if "seconds" in limits else ())


def _ended(means: Means, hunts: Sequence[Hunt], tried: Sequence[Attempt]) -> Searched:
    """The finalists of every precision side by side with the original, and the one that is kept."""
    lab, budgets = hunts[0].lab, means.wishes.budgets
    wide = [hunt for hunt in hunts if budgets or hunt.refined.allowed or not hunt.lab.space.level]
    candidates = [candidate for hunt in wide for candidate in hunt.lab.finalists(hunt.refined.best, hunt.roomy)]
    referee = Referee(budgets, [hunt.lab.space for hunt in hunts], lab.space.criterion)
    first = contest.hold(lab.arena, candidates, means.say, referee if budgets else None)
    plan = Plan("", "", engine=lab.arena.knobs) if first.kept is None else first.kept.plan
    kept = next((hunt for hunt in hunts if hunt.lab.space.makes(plan)), hunts[0])
    standing = finishing.learned(first, kept.lab)
    outcome = quantizing.outcome(means.job, standing, tried, len(lab.arena.held), lab.arena.knobs)
    others = [hunt for hunt in hunts if hunt is not kept]
    # What is learnt takes the time of the network that it was made of: a budget is kept to by both or by none.
    over, missed = referee.over(first) if budgets else None, tuple(referee.missed(first))
    if over is not None and first.kept and standing.kept and first.kept.name in over:
        over |= {standing.kept.name}
    return Searched(outcome, kept, others, missed, over, means.work)
