"""One training for many widths: after it one stored network runs at each of them.

Huang et al., Nearly Lossless Adaptive Bit Switching: every step goes through all widths, from the most bits to the
fewest, with an update behind each. Scales learn the slower the fewer bits they are of and the larger their gradients
(ALRS), so that a narrow width does not pull along what the wide ones share.

Where layers are to differ in width, too, every step has one more update, in widths that are drawn layer by layer: any
alike where the loss is little curved, else the likelier the more bits (Hessian-aware stochastic bit switching).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from convkit.compress.training import draws, loop
from convkit.compress.training.choices import Choices
from convkit.compress.training.crew import Crew
from convkit.compress.training.cycle import Cycle
from convkit.compress.training.quantized import LEAST, SCALES, Aim, QuantizedLearner
from convkit.compress.training.shifted import share

if TYPE_CHECKING:
    from convkit.compress.model import Model
    from convkit.compress.training.augment import Augment
    from convkit.compress.training.loop import Schedule, State
    from convkit.compress.training.samples import Inputs, Samples
    from convkit.compress.training.trainable import Network

Members = Mapping[str, Sequence[str]]
"""The layers of each decision."""


class Switch(Choices):
    """The same network quantized at several widths, `networks` by bits, as one: weights of all are those of the widest,
    shifted.
    """

    def __init__(self, networks: Mapping[int, Network]) -> None:
        super().__init__({str(bits): networks[bits] for bits in sorted(networks, reverse=True)}, share)
        self.widths = [int(label) for label in self.networks]

    def parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter], dict[int, list[nn.Parameter]]]:
        """(those of the network, scales that all widths share, scales of each width alone)."""
        found = self.scales()
        seen = Counter(id(one) for own in found.values() for one in own)
        scales = {id(one): one for own in found.values() for one in own}
        shared = [one for key, one in scales.items() if seen[key] > 1]
        alone = {int(label): [one for one in own if seen[id(one)] == 1] for label, own in found.items()}
        return [one for one in self.graph.parameters() if id(one) not in scales], shared, alone

    def settle(self) -> dict[int, Model]:
        """The quantized Model of each width, as it was learnt."""
        # Twice: where a bias needs a larger scale of the weights, all widths have it.
        return [{int(bits): network.settle() for bits, network in self.networks.items()} for _ in range(2)][-1]


def train(
    switch: Switch,
    samples: Samples,
    aim: Aim,
    schedule: Schedule,
    *,
    augment: Augment | None = None,
    kept: tuple[Mapping[str, Tensor], Mapping[str, object]] | None = None,
    draws: Draws | None = None,
) -> Iterator[tuple[SwitchLearner, State]]:
    """Train `switch` on `samples` at all its widths, and in what `draws` gives; the state after every epoch, to be kept
    with `loop.packed`. What was `kept` goes on.
    """
    updates = len(switch.networks) + (draws is not None)
    total = schedule.epochs * samples.steps(schedule.batch, LEAST) * updates
    learner = SwitchLearner(switch, aim, Adaptive(switch, schedule, total), schedule.batch, draws)
    state = None if kept is None else loop.unpacked(learner, *kept)
    for now in loop.run(learner, samples, schedule, least=LEAST, augment=augment, state=state):
        yield learner, now


class Draws:
    """Widths for the decisions `members`, drawn one by one: any alike where the Hessian's trace is below the mean of
    all, else in proportion to their bits. `curved`: traces of layers.
    """

    def __init__(self, widths: Sequence[int], members: Members, curved: Mapping[str, float], seed: int) -> None:
        self._widths, self._seed = widths, seed
        means = {name: sum(curved[key] for key in own) / len(own) for name, own in members.items()}
        usual, bits = sum(means.values()) / max(1, len(means)), torch.tensor(widths, dtype=torch.float32)
        even = torch.ones_like(bits)
        self._shares = {name: even if mean < usual else bits for name, mean in means.items()}

    def at(self, place: float) -> dict[str, int]:
        """Of that place in training, in epochs."""
        chance = draws.at(self._seed, place)
        return {
            name: self._widths[int(torch.multinomial(shares, 1, generator=chance))]
            for name, shares in self._shares.items()
        }


class Adaptive(Cycle):
    """The optimizer of a Switch: scales learn at a rate that adapts to their width and to their gradients (ALRS).

    The paper's rate is η · (λ - mean of min(max |gradient|, 1)) with λ of about 1, at η = 10^(-Δ/2) for even Δ and
    5 · 10^(-(Δ+1)/2) for odd Δ; here it is that share of the rate of all scales, and nothing where it would be less.
    """

    def __init__(self, switch: Switch, schedule: Schedule, total: int) -> None:
        own, shared, alone = switch.parameters()
        self._shared, self._alone, self._widest = shared, alone, max(alone)
        groups = [(own, 1.0, 1.0), (shared, SCALES, 0.0), *((scales, SCALES, 0.0) for scales in alone.values())]
        super().__init__([group for group in groups if group[0]], schedule, total, switch.units())
        self._count = len([group for group in groups[1:] if group[0]])

    def update_at(self, bits: int, losses: Iterable[Tensor]) -> float:
        """A step against the gradient of the sum of `losses` at this width; that sum."""
        total = self.gradient(losses)
        share = eta(self._widest - bits) * max(0.0, 1.0 - self._steepness(bits))
        self.step([1.0, *[share] * self._count])
        return total

    def update_mixed(self, drawn: Collection[int], losses: Iterable[Tensor]) -> float:
        """A step where layers are `drawn` at these widths: scales of a width at its rate, what widths share at the mean
        of those; the sum of `losses`."""
        total = self.gradient(losses)
        calm = max(0.0, 1.0 - self._steepness(*set(drawn)))
        rates = {bits: eta(self._widest - bits) * calm for bits in self._alone}
        shared = sum(rates[bits] for bits in drawn) / max(1, len(drawn))
        groups = [(self._shared, shared), *((self._alone[bits], rate) for bits, rate in rates.items())]
        self.step([1.0, *(rate for scales, rate in groups if scales)])
        return total

    def _steepness(self, *widths: int) -> float:
        alone = (one for bits in widths for one in self._alone[bits])
        gradients = [one.grad for one in (*self._shared, *alone) if one.grad is not None]
        return sum(min(float(one.abs().max()), 1.0) for one in gradients) / max(1, len(gradients))


def eta(less: int) -> float:
    """By what scales of a width of so many bits `less` than the widest learn slower."""
    return float(10 ** (-less / 2) if less % 2 == 0 else 5 * 10 ** (-(less + 1) / 2))


class SwitchLearner(QuantizedLearner):
    """A network in training at all its widths."""

    updates: Adaptive

    def __init__(self, switch: Switch, aim: Aim, updates: Adaptive, batch: int, draws: Draws | None = None) -> None:
        super().__init__(switch.first, aim, updates, batch, (1, Crew()))
        self._switch, self._draws = switch, draws

    def weights(self) -> Mapping[str, Tensor]:
        """Weights, scales, and statistics of norms, what widths share once."""
        graph = self._switch.graph
        return dict(graph.named_parameters()) | dict(graph.named_buffers())

    def step(self, inputs: Inputs, labels: Tensor | None, at: float) -> float:
        """At each width in turn, and in what is drawn; the mean loss of the widths."""
        total = 0.0
        for bits in self._switch.widths:
            self._switch.at(str(bits))
            total += self.updates.update_at(bits, [self.loss(inputs, labels)])
        if self._draws is not None:
            drawn = self._draws.at(at)
            self._switch.at(str(self._switch.widths[0]))
            self._switch.mixed({name: str(bits) for name, bits in drawn.items()})
            self.updates.update_mixed(list(drawn.values()), [self.loss(inputs, labels)])
        return total / len(self._switch.networks)

    def judge(self) -> float:
        """The mean of all widths."""
        return sum(self.judged().values()) / len(self._switch.networks)

    def judged(self) -> dict[int, float]:
        """The aim on what is held back, at each width."""
        found = {}
        for bits in self._switch.widths:
            self._switch.at(str(bits))
            found[bits] = super().judge()
        return found
