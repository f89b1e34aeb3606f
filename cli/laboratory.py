"""The Laboratory: where the choices of a search are built, and truly measured side by side with the original."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from convkit.cli import building, characters, contest
from convkit.cli.checkpoint import Checkpoint
from convkit.cli.contest import Candidate
from convkit.cli.picture import Point
from convkit.cli.precisions import F32
from convkit.cli.progress import Progress
from convkit.compress import record
from convkit.compress.option import FLOAT
from convkit.compress.search.refine import Measured, Trial

if TYPE_CHECKING:
    from convkit.cli.searchspace import Space
    from convkit.compress.plan import Plan
    from convkit.compress.search.problem import Choice, Cost
    from convkit.compress.search.remedies import Task

ROUND_SHARE = 0.4
"""Seconds that a round of candidates takes, as part of the final measurement's."""
_ERRORS = 1.96
"""Half the width of a 95 % interval in standard errors."""
BISECTIONS = 3
"""Looks along the front for the loss that is still good."""


def computed(plan: Plan) -> str:
    """A digest of what decides the numbers that a network under `plan` computes: not the knobs that set its speed."""
    precision = plan.engine.get("precision", F32.name)
    return replace(plan, engine={"precision": precision}, pins={}).digest


@dataclass(frozen=True, slots=True)
class Lab:
    """Where choices are truly measured. What was measured before is taken from `kept`."""

    space: Space
    task: Task
    glance: Task
    """The same judged on as many held-back samples as tell losses apart: choices are compared on the same ones."""
    arena: contest.Contest
    kept: Checkpoint
    say: Progress
    points: list[Point] = field(default_factory=list)
    """What the front shows so far."""

    def scores(self, plan: Plan) -> Mapping[str, float]:
        """Metrics of the simulated network on held-back samples."""
        return self._scored("scores", self.task, plan)

    def _promised(self, plan: Plan) -> float:
        return self.scores(plan)["sqnr"]

    def loss(self, plan: Plan) -> float:
        """What the criterion makes of it at a glance."""
        return self.space.criterion.loss(self._scored("glances", self.glance, plan), self.glance.of_float)

    def _scored(self, name: str, task: Task, plan: Plan) -> Mapping[str, float]:
        """The scores of `task`, known by `name` when asked for again."""
        key = computed(plan)
        known = (self.kept.value(name) or {}).get(key)
        if known is not None:
            return dict(known)
        found = task.score(self.space.simulated(self.space.builder.network(plan)))
        self.kept.add(name, {key: found})
        return found

    def file(self, plan: Plan) -> Path:
        """The network as the engine gets it: the original's file where every layer is in float."""
        if not plan.changes:
            return self.arena.original
        return self.space.builder.file(self.space.builder.network(plan))

    def kept_file(self, plan: Plan) -> Path:
        """The same, made once for all runs."""
        name = f"{plan.digest}.onnx"
        found = self.kept.file(name)
        if found is not None:
            return found
        made = self.file(plan)
        if building.beside(made).exists():
            self.kept.keep_file(building.beside(Path(name)).name, building.beside(made))
        self.kept.keep_file(name, made)
        return made

    @property
    def whole(self) -> tuple[Trial, ...]:
        """The network in float, which loses nothing: what the others take is told by their ratio to it."""
        formats, original = dict.fromkeys(self.space.options, FLOAT), self.space.original
        if self.space.precision != F32 or self.space.pins or self.space.level:
            return ()
        return (Trial(formats, self.space.problem.cost(formats), replace(original, loss=0.0)),)

    def measure(self, found: Sequence[Choice]) -> list[Measured]:
        """Loss on held-back samples, and seconds side by side with the original's, of each choice."""
        plans = [self.space.plan_of(choice.formats) for choice in found]
        key = record.digest_json([plan.digest for plan in plans])
        known = (self.kept.value("rounds") or {}).get(key)
        measured = self._measured(plans) if known is None else [Measured(*figures) for figures in known]
        if known is None:
            self.kept.add("rounds", {key: [(one.loss, one.seconds, one.noise, one.bytes) for one in measured]})
        for choice, one in zip(found, measured, strict=True):
            self._tell(choice, one.loss, one.seconds)
        self._show()
        return measured

    def _measured(self, plans: Sequence[Plan]) -> list[Measured]:
        names = [f"choice {index}" for index in range(len(plans))]
        candidates, losses = [], []
        for number, (name, plan) in enumerate(zip(names, plans, strict=True), 1):
            self.say(f"building choice {number} of {len(plans)}")
            losses.append(self.loss(plan))
            candidates.append(Candidate(name, plan, self.file(plan)))
        timed = contest.measured(self.arena, candidates, self.arena.budget * ROUND_SHARE, self.say)
        original, ratios = self.space.original.seconds, [timed[name].ratios["p10"] for name in names]
        sizes = [float(candidate.path.stat().st_size) for candidate in candidates]
        return [
            Measured(loss, ratio.value * original, ratio.width / _ERRORS, size)
            for loss, ratio, size in zip(losses, ratios, sizes, strict=True)
        ]

    def _tell(self, choice: Choice, loss: float, seconds: float) -> None:
        """A line and a point for what was measured."""
        whole, promised, criterion = self.space.original["seconds"], choice.cost, self.space.criterion
        found = "estimated" if self.space.estimated else "measured"
        floats = sum(option == self.space.precision.floating for option in choice.formats.values())
        self.say.found(
            f"{found} {seconds / whole:.3f}x at {criterion.words(loss)}; predicted "
            f"{promised['seconds'] / whole:.3f}x at {criterion.words(promised['loss'])}; "
            f"{len(choice.formats) - floats} of {len(choice.formats)} layers in low precision"
        )
        self.points.append(Point("", seconds / whole, criterion.shown(loss), "measured"))

    def _show(self) -> None:
        self.say.picture(characters.front(self.points, height=12, better=self.space.criterion.better))

    def expect(self, front: Sequence[Choice]) -> None:
        """Show the front as the tables promise it."""
        whole, criterion = self.space.original["seconds"], self.space.criterion
        costs: list[Cost] = [choice.cost for choice in front]
        self.points.extend(Point("", c["seconds"] / whole, criterion.shown(c["loss"]), "predicted") for c in costs)
        if costs:
            fast = min(costs, key=lambda cost: cost["seconds"])
            self.say.found(
                f"{len(costs)} choices on the front, the fastest predicted {fast['seconds'] / whole:.3f}x "
                f"at {criterion.words(fast['loss'])}"
            )
            self._show()

    def good_loss(self, front: Sequence[Choice]) -> float:
        """Measured loss of the last choice along the front, from the most accurate on, that is as good as the
        original, which loses nothing."""
        order = sorted(front, key=lambda choice: choice.cost["loss"])
        if self.space.level and not self.task.good(self.scores(self.space.plan_of(order[0].formats))):
            return 0.0  # nothing that is made of it is as good
        low, high, found = 0, len(order) - 1, None
        for _ in range(BISECTIONS):
            if low >= high:
                break
            middle = (low + high + 1) // 2
            plan = self.space.plan_of(order[middle].formats)
            if self.task.good(self.scores(plan)):
                low, found = middle, plan
            else:
                high = middle - 1
        return max(0.0, 0.0 if found is None else self.loss(found), order[low].cost["loss"])

    def finalists(self, best: Trial, roomy: Mapping[str, Trial]) -> list[Candidate]:
        """The best choice, the same with learned rounding, those with room to the limits, all layers in the target's
        own format, and all of them in float where its precision is not the original's."""
        found: dict[bytes, Candidate] = {}
        for name, plan in self._plans(best, roomy).items():
            self.say(f"building {name}")
            path = self.kept_file(plan)
            if path.read_bytes() not in found:
                found[path.read_bytes()] = Candidate(name, plan, path, partial(self._promised, plan))
                if building.learns(plan):
                    # Its network is at hand now: to learn it again takes longer than to simulate it.
                    self.scores(plan)
        return list(found.values())

    def _plans(self, best: Trial, roomy: Mapping[str, Trial]) -> dict[str, Plan]:
        chosen, floating = self.space.plan_of(best.formats), self.space.precision.floating
        plans = {
            "searched": chosen,
            "searched, learned rounding": building.with_learned_rounding(chosen),
            **{name: self.space.plan_of(trial.formats) for name, trial in roomy.items()},
        }
        if self.space.has(uniform := self.space.uniform()):
            plans["uniform"] = uniform
        may_change = bool(self.space.level) or any(len(options) > 1 for options in self.space.options.values())
        plans = {name: plan for name, plan in plans.items() if plan.changes and may_change}
        if self.space.level:
            plans = {f"{name}, {self.space.level}": plan for name, plan in plans.items()}
        if floating == FLOAT:
            return plans
        plans = {f"{name}, float in {floating}": plan for name, plan in plans.items()}
        floats = {**dict.fromkeys(self.space.options, floating), **self.space.pins}
        return plans | {f"all in {floating}": self.space.plan_of(floats)}
