"""DNAS: layers run in all formats at once, by shares that are learnt as weights are, then in what these came to.

Wu et al., Mixed Precision Quantization of ConvNets via Differentiable Neural Architecture Search (2018): shares are
drawn from a Gumbel softmax that cools down. Steps take as many times the memory as there are formats. Here one
optimizer step is of weights and of shares, cost is told by how far what is expected is off its target, and the network
goes on in what was chosen rather than from the start.
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

DECIDED = 0.7
"""Part of the steps up to which shares are learnt."""
_WARM, _COLD = 5.0, 0.5
"""Temperature of the softmax, at the beginning and then."""


def begun(choices: Choices, search: Search, samples: Samples, aim: Aim, schedule: Schedule) -> Blended:
    """The learner of `choices` in shares; raises ConvkitError where an operator reads codes."""
    choices.check_blends()
    steps = mixing.steps(samples, schedule)
    found = Policy(search.costs.labels, round(steps * DECIDED))
    return Blended(choices, search, aim, mixing.PolicyUpdates(choices, found, schedule, steps), schedule)


class Blended(mixing.PolicyLearner):
    """A network in training, in all formats at once."""

    def step(self, inputs: Inputs, labels: Tensor | None, at: float) -> float:
        """By the shares that are drawn, which learn too."""
        done = at / self.epochs
        if done >= DECIDED:
            return self.settled(inputs, labels)
        temperature = _WARM * (_COLD / _WARM) ** (done / DECIDED)
        shares = self.policy.shares(draws.at(self.search.seed, at), temperature)
        self._choices.blended(dict(zip(self.policy.decisions, shares, strict=True)))
        loss = self.loss(inputs, labels)
        off = self.search.strength * (1 - self._expected(shares) / self.search.target).abs().float()
        total = self.updates.update([loss + off])
        self.policy.update()
        return total - float(off.detach())

    def _expected(self, shares: Tensor) -> Tensor:
        """What a network of these shares costs: exactly, where layers cost each for itself."""
        costs = self.search.costs
        usual = self.policy.named(shares.argmax(1))
        whole = costs.of(usual)
        changes = torch.tensor(costs.each(usual), dtype=torch.float64) - whole
        return whole + (shares.double() * changes).sum()


PART = begun
