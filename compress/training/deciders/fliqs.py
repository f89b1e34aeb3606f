"""FLIQS: formats are searched while the network is trained in them, once, and nothing is trained behind.

Every step runs in formats that a policy draws, one network at a time, so that it takes what plain quantization-aware
training takes. Scales are each format's own (switchable clipping).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from convkit.compress.training import loop, mixing
from convkit.compress.training.policy import Policy
from convkit.compress.training.quantized import LEAST, Aim

if TYPE_CHECKING:
    from convkit.compress.training.augment import Augment
    from convkit.compress.training.choices import Choices
    from convkit.compress.training.loop import Schedule, State
    from convkit.compress.training.mixing import Search
    from convkit.compress.training.samples import Inputs, Samples

DELAY, DECIDED = 0.2, 0.7
"""Parts of the steps: up to the first formats are drawn by chance alone, up to the second by the policy, which learns;
then the network goes on in what is chosen."""


def train(
    choices: Choices,
    search: Search,
    samples: Samples,
    aim: Aim,
    schedule: Schedule,
    *,
    augment: Augment | None = None,
    kept: tuple[Mapping[str, Tensor], Mapping[str, object]] | None = None,
) -> Iterator[tuple[Drawn, State]]:
    """Train on `samples` and search; the state after every epoch, to be kept with `loop.packed`. What was `kept` goes
    on.
    """
    steps = schedule.epochs * samples.steps(schedule.batch, LEAST)
    found = Policy(list(search.costs.members), list(choices.networks), round(steps * (DECIDED - DELAY)))
    learner = Drawn(choices, search, aim, Updates(choices, found, schedule, steps), schedule)
    state = None if kept is None else loop.unpacked(learner, *kept)
    for now in loop.run(learner, samples, schedule, least=LEAST, augment=augment, state=state, last=True):
        yield learner, now


class Updates(mixing.Updates):
    """The optimizers of weights, scales and policy."""

    def __init__(self, choices: Choices, policy: Policy, schedule: Schedule, total: int) -> None:
        super().__init__(choices, schedule, total)
        self.policy = policy

    def tensors(self) -> dict[str, Tensor]:
        """What all of them keep."""
        return super().tensors() | {f"policy.{name}": tensor for name, tensor in self.policy.tensors().items()}

    def restore(self, tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> None:
        """Go on from there."""
        own = {name.removeprefix("policy."): one for name, one in tensors.items() if name.startswith("policy.")}
        super().restore({name: one for name, one in tensors.items() if not name.startswith("policy.")}, told)
        self.policy.restore(own)


class Drawn(mixing.Learner):
    """A network in training, in formats that a policy draws."""

    updates: Updates

    def __init__(self, choices: Choices, search: Search, aim: Aim, updates: Updates, schedule: Schedule) -> None:
        super().__init__(choices, search, aim, updates, schedule)
        self.policy, self._epochs = updates.policy, schedule.epochs
        self._chance = torch.Generator()
        self._final: dict[str, str] | None = None

    def weights(self) -> Mapping[str, Tensor]:
        """Weights, scales, statistics of norms, and the policy."""
        own = dict(super().weights())
        return own | {f"policy.{name}": one for name, one in self.policy.state_dict(keep_vars=True).items()}

    def step(self, inputs: Inputs, labels: Tensor | None, at: float) -> float:
        """In the formats that are drawn; what they are worth is learnt from."""
        done = at / self._epochs
        if done >= DECIDED:
            self._final = self._final or self.chosen()
            self._choices.mixed(self._final)
            return self.updates.update([self.loss(inputs, labels)])
        # Of the place alone, so that training which was killed draws the same.
        self._chance.manual_seed(hash((self.search.seed, round(at * 1e6))) % 2**63)
        places = self.policy.drawn(self._chance, uniform=done < DELAY)
        chosen = self.policy.named(places)
        self._choices.mixed(chosen)
        loss = self.updates.update([self.loss(inputs, labels)])
        self.policy.seen(places, 1 / (1 + loss))
        if done >= DELAY:
            costs = torch.tensor(self.search.costs.each(chosen), dtype=torch.float64)
            off = (1 - costs / self.search.target).abs().float()
            self.policy.learn(self.search.strength * off, (done - DELAY) / (DECIDED - DELAY))
        return loss

    def judge(self) -> float:
        """The aim on what is held back, in what would be chosen now."""
        self.updates.history.append(self.policy.told())
        return super().judge()

    def entropy(self) -> float:
        """Of the policy."""
        return self.policy.entropy()

    def chosen(self) -> dict[str, str]:
        """The format of each decision: those that are best together at the cost that is asked for."""
        rows = zip(self.policy.decisions, self.policy.merits().tolist(), strict=True)
        return self.search.best({name: dict(zip(self.policy.options, row, strict=True)) for name, row in rows})


PART = train
