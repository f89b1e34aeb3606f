"""FLIQS: formats are searched while the network is trained in them, once, and nothing is trained behind.

Every step runs in formats that a policy draws, one network at a time, so that it takes what plain quantization-aware
training takes. Scales are each format's own (switchable clipping).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from convkit.compress.training import loop
from convkit.compress.training.crew import Crew
from convkit.compress.training.policy import Policy
from convkit.compress.training.quantized import LEAST, SCALES, Aim, QuantizedLearner

if TYPE_CHECKING:
    from convkit.compress.training.augment import Augment
    from convkit.compress.training.choices import Choices
    from convkit.compress.training.costs import Costs
    from convkit.compress.training.loop import Schedule, State
    from convkit.compress.training.rounded import Weight
    from convkit.compress.training.samples import Inputs, Samples

DELAY, DECIDED = 0.2, 0.7
"""Parts of the steps: up to the first formats are drawn by chance alone, up to the second by the policy, which learns;
then the network goes on in what is chosen."""


@dataclass(frozen=True, slots=True)
class Search:
    """What is chosen is to cost `target` by `costs`, and never more; `strength` of what it is off, in parts of that,
    against quality from 0 to 1."""

    costs: Costs
    target: float
    strength: float = 1.0
    seed: int = 0


def share(own: Weight, other: Weight) -> None:
    """One weight for all formats, each with scales of its own."""
    own.weight = other.weight


def train(
    choices: Choices,
    search: Search,
    samples: Samples,
    aim: Aim,
    schedule: Schedule,
    *,
    augment: Augment | None = None,
    kept: tuple[Mapping[str, Tensor], Mapping[str, object]] | None = None,
) -> Iterator[tuple[SearchLearner, State]]:
    """Train on `samples` and search; the state after every epoch, to be kept with `loop.packed`. What was `kept` goes
    on.
    """
    steps = schedule.epochs * samples.steps(schedule.batch, LEAST)
    found = Policy(list(search.costs.members), list(choices.networks), round(steps * (DECIDED - DELAY)))
    learner = SearchLearner(choices, search, aim, Updates(choices, found, schedule, steps), schedule)
    state = None if kept is None else loop.unpacked(learner, *kept)
    for now in loop.run(learner, samples, schedule, least=LEAST, augment=augment, state=state, last=True):
        yield learner, now


class Updates(loop.Cycle):
    """The optimizers of weights, scales and policy."""

    def __init__(self, choices: Choices, policy: Policy, schedule: Schedule, total: int) -> None:
        scales = list({id(one): one for own in choices.scales().values() for one in own}.values())
        known = {id(one) for one in scales}
        own = [one for one in choices.graph.parameters() if id(one) not in known]
        super().__init__([(own, 1, 1), (scales, SCALES, 0)], schedule, total)
        self.policy, self.history = policy, list[list[list[float]]]()

    def told(self) -> dict[str, Any]:
        """Where in the cycle it is, and what the policy was before every epoch."""
        return super().told() | {"policy": self.history}

    def tensors(self) -> dict[str, Tensor]:
        """What all of them keep."""
        return super().tensors() | {f"policy.{name}": tensor for name, tensor in self.policy.tensors().items()}

    def restore(self, tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.history = list(told["policy"])
        own = {name.removeprefix("policy."): one for name, one in tensors.items() if name.startswith("policy.")}
        super().restore({name: one for name, one in tensors.items() if not name.startswith("policy.")}, told)
        self.policy.restore(own)


class SearchLearner(QuantizedLearner):
    """A network in training, in formats that are searched."""

    updates: Updates

    def __init__(self, choices: Choices, search: Search, aim: Aim, updates: Updates, schedule: Schedule) -> None:
        super().__init__(choices.first, aim, updates, schedule.batch, (1, Crew()))
        self.policy = updates.policy
        self._choices, self._search, self._epochs = choices, search, schedule.epochs
        self._chance = torch.Generator()
        self._final: dict[str, str] | None = None

    def weights(self) -> Mapping[str, Tensor]:
        """Weights, scales, statistics of norms, and the policy."""
        graph = self._choices.graph
        own = dict(graph.named_parameters()) | dict(graph.named_buffers())
        return own | {f"policy.{name}": one for name, one in self.policy.state_dict(keep_vars=True).items()}

    def step(self, inputs: Inputs, labels: Tensor | None, at: float) -> float:
        """In the formats that are drawn; what they are worth is learnt from."""
        done = at / self._epochs
        if done >= DECIDED:
            self._final = self._final or self.chosen()
            self._choices.mixed(self._final)
            return self.updates.update([self.loss(inputs, labels)])
        # Of the place alone, so that training which was killed draws the same.
        self._chance.manual_seed(hash((self._search.seed, round(at * 1e6))) % 2**63)
        places = self.policy.drawn(self._chance, uniform=done < DELAY)
        chosen = self.policy.named(places)
        self._choices.mixed(chosen)
        loss = self.updates.update([self.loss(inputs, labels)])
        self.policy.seen(places, 1 / (1 + loss))
        if done >= DELAY:
            costs = torch.tensor(self._search.costs.each(chosen), dtype=torch.float64)
            off = (1 - costs / self._search.target).abs().float()
            self.policy.learn(self._search.strength * off, (done - DELAY) / (DECIDED - DELAY))
        return loss

    def judge(self) -> float:
        """The aim on what is held back, in what would be chosen now."""
        self.updates.history.append(self.policy.told())
        self._choices.mixed(self.chosen())
        return super().judge()

    def chosen(self) -> dict[str, str]:
        """The format of each decision: those that are best together at the cost that is asked for."""
        policy = self.policy
        merits = {
            name: dict(zip(policy.options, row, strict=True))
            for name, row in zip(policy.decisions, policy.merits().tolist(), strict=True)
        }
        found = self._search.costs.best(merits, self._search.target)
        assert found is not None  # who asks sees to that  # noqa: S101
        return found
