"""FLIQS: formats are searched while the network is trained in them, once, and nothing is trained behind.

Every step runs in formats that a policy draws, one network at a time, so that it takes what plain quantization-aware
training takes. Scales are each format's own (switchable clipping).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from convkit.compress.training import draws, mixing
from convkit.compress.training.policy import Policy
from convkit.compress.training.quantized import Aim

if TYPE_CHECKING:
    from convkit.compress.training.choices import Choices
    from convkit.compress.training.loop import Schedule
    from convkit.compress.training.mixing import Search
    from convkit.compress.training.samples import Inputs, Samples

DELAY, DECIDED = 0.2, 0.7
"""Parts of the steps: up to the first formats are drawn by chance alone, up to the second by the policy, which learns;
then the network goes on in what is chosen."""


def begun(choices: Choices, search: Search, samples: Samples, aim: Aim, schedule: Schedule) -> Drawn:
    """The learner of `choices` in formats that a policy draws."""
    steps = mixing.steps(samples, schedule)
    found = Policy(search.costs.labels, round(steps * (DECIDED - DELAY)))
    return Drawn(choices, search, aim, mixing.PolicyUpdates(choices, found, schedule, steps), schedule)


class Drawn(mixing.PolicyLearner):
    """A network in training, in formats that a policy draws."""

    def step(self, inputs: Inputs, labels: Tensor | None, at: float) -> float:
        """In the formats that are drawn; what they are worth is learnt from."""
        done = at / self.epochs
        if done >= DECIDED:
            return self.settled(inputs, labels)
        places = self.policy.drawn(draws.at(self.search.seed, at), uniform=done < DELAY)
        chosen = self.policy.named(places)
        self._choices.mixed(chosen)
        loss = self.updates.update([self.loss(inputs, labels)])
        self.policy.seen(places, quality(loss))
        if done >= DELAY:
            costs = torch.tensor(self.search.costs.each(chosen), dtype=torch.float64)
            off = (1 - costs / self.search.target).abs().float()
            self.policy.learn(self.search.strength * off, (done - DELAY) / (DECIDED - DELAY))
        return loss


def quality(loss: float) -> float:
    """What a network of that loss is worth, from 0 to 2: 1 at none, more where a user's own loss is less than none."""
    return 1 / (1 + loss) if loss >= 0 else 2 - 1 / (1 - loss)


PART = begun
