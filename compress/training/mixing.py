"""Training in formats that differ from layer to layer, which one of the `deciders` finds within what they may cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from convkit.compress import parts
from convkit.compress.training import loop
from convkit.compress.training.crew import Crew
from convkit.compress.training.cycle import Cycle
from convkit.compress.training.quantized import LEAST, SCALES, Aim, QuantizedLearner

if TYPE_CHECKING:
    from convkit.compress.training.augment import Augment
    from convkit.compress.training.choices import Choices
    from convkit.compress.training.costs import Costs
    from convkit.compress.training.loop import Schedule, State
    from convkit.compress.training.policy import Policy
    from convkit.compress.training.rounded import Weight
    from convkit.compress.training.samples import Inputs, Samples
    from convkit.compress.training.width_costs import WidthCosts

L = TypeVar("L", bound="Learner")
FOLDER = "compress/training/deciders"
"""Each is a function of what `train` takes, which makes the Learner."""


def load(name: str) -> Any:  # noqa: ANN401 - each takes what it takes
    """The decider of that name; an unknown one is the user's error."""
    return parts.load(FOLDER, name)


@dataclass(frozen=True, slots=True)
class Search:
    """What is chosen is to cost `target` by `costs`, and never more; `strength` of what it is off, in parts of that,
    against quality from 0 to 1."""

    costs: Costs | WidthCosts
    target: float
    strength: float = 1.0
    seed: int = 0

    def best(self, merits: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
        """The format or width of each decision: those whose merits are most together at the cost that is asked for."""
        found = self.costs.best(merits, self.target)
        assert found is not None  # who asks sees to that  # noqa: S101
        return found


def share(own: Weight, other: Weight) -> None:
    """One weight for all formats, each with scales of its own."""
    own.weight = other.weight


def steps(samples: Samples, schedule: Schedule) -> int:
    """Of a whole training."""
    return schedule.epochs * samples.steps(schedule.batch, LEAST)


def train(
    decider: Callable[[Choices, Search, Samples, Aim, Schedule], L],
    choices: Choices,
    search: Search,
    samples: Samples,
    aim: Aim,
    schedule: Schedule,
    *,
    augment: Augment | None = None,
    kept: tuple[Mapping[str, Tensor], Mapping[str, object]] | None = None,
) -> Iterator[tuple[L, State]]:
    """Train on `samples` and decide; the state after every epoch, to be kept with `loop.packed`. What was `kept` goes
    on.
    """
    learner = decider(choices, search, samples, aim, schedule)
    state = None if kept is None else loop.unpacked(learner, *kept)
    for now in loop.run(learner, samples, schedule, least=LEAST, augment=augment, state=state, last=learner.last):
        yield learner, now


class Updates(Cycle):
    """The optimizers of weights and of the scales of all formats; `history`: a policy before every epoch."""

    def __init__(self, choices: Choices, schedule: Schedule, total: int) -> None:
        scales = list({id(one): one for own in choices.scales().values() for one in own}.values())
        known = {id(one) for one in scales}
        own = [one for one in choices.graph.parameters() if id(one) not in known]
        super().__init__([(own, 1, 1), (scales, SCALES, 0)], schedule, total, choices.units())
        self.history = list[list[list[float]]]()

    def told(self) -> dict[str, Any]:
        """Where in the cycle it is, and what the policy was before every epoch."""
        return super().told() | {"policy": self.history}

    def restore(self, tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.history = list(told["policy"])
        super().restore(tensors, told)


class Learner(QuantizedLearner, ABC):
    """A network in training, in the formats that are `chosen`."""

    updates: Updates
    last = False
    """Whether what training ends with counts, rather than its best epoch."""

    def __init__(self, choices: Choices, search: Search, aim: Aim, updates: Updates, schedule: Schedule) -> None:
        super().__init__(choices.first, aim, updates, schedule.batch, (1, Crew()))
        self.search, self._choices = search, choices

    def weights(self) -> Mapping[str, Tensor]:
        """Weights, scales of all formats, and statistics of norms."""
        graph = self._choices.graph
        return dict(graph.named_parameters()) | dict(graph.named_buffers())

    def judge(self) -> float:
        """The aim on what is held back, in what would be chosen now."""
        self._choices.mixed(self.chosen())
        return super().judge()

    def entropy(self) -> float:
        """Of a decision, on average: none, where all is decided."""
        return 0.0

    @abstractmethod
    def chosen(self) -> dict[str, str]:
        """The format of each decision."""


class PolicyUpdates(Updates):
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


class PolicyLearner(Learner):
    """A network in training, in formats that a policy comes to."""

    updates: PolicyUpdates
    last = True

    def __init__(self, choices: Choices, search: Search, aim: Aim, updates: PolicyUpdates, schedule: Schedule) -> None:
        super().__init__(choices, search, aim, updates, schedule)
        self.policy, self.epochs = updates.policy, schedule.epochs
        self._final = dict[str, str]()

    def weights(self) -> Mapping[str, Tensor]:
        """Weights, scales, statistics of norms, and the policy."""
        own = self.policy.state_dict(keep_vars=True)
        return dict(super().weights()) | {f"policy.{name}": one for name, one in own.items()}

    def settled(self, inputs: Inputs, labels: Tensor | None) -> float:
        """A step in what is chosen from here on; its loss."""
        self._final = self._final or self.chosen()
        self._choices.mixed(self._final)
        return self.updates.update([self.loss(inputs, labels)])

    def judge(self) -> float:
        """The aim on what is held back, in what would be chosen now."""
        self.updates.history.append(self.policy.told())
        return super().judge()

    def entropy(self) -> float:
        """Of the policy."""
        return self.policy.entropy()

    def chosen(self) -> dict[str, str]:
        """The format of each decision: those that are best together at the cost that is asked for."""
        return self.search.best(self.policy.merits())
