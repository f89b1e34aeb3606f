"""The optimizer of all trainings: AdamW in one cycle, of steps that may be in proportion to what they change."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from convkit.compress.training.crew import Crew
    from convkit.compress.training.loop import Schedule


class Cycle:
    """AdamW (Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019) with one cycle of the learning
    rate (Smith and Topin, Super-Convergence, 2019); the first steps of a rate that rises may be long, so the norm of a
    gradient is at most 1.

    `groups`: parameters, and by what the rate and the decay of each group are multiplied. `units`: by a parameter's id,
    by what each of its steps is multiplied, number for number.
    """

    def __init__(
        self,
        groups: Sequence[tuple[Sequence[Tensor], float, float]],
        schedule: Schedule,
        total: int,
        units: Mapping[int, Tensor] | None = None,
    ) -> None:
        self._parameters = [parameter for group, _, _ in groups for parameter in group]
        self._units = [(one, units[id(one)]) for one in self._parameters if id(one) in units] if units else []
        self._sound = True
        rates = [schedule.rate * times for _, times, _ in groups]
        given = [
            {"params": list(group), "lr": rate, "weight_decay": schedule.decay * decays}
            for (group, _, decays), rate in zip(groups, rates, strict=True)
        ]
        self._optimizer = torch.optim.AdamW(given, schedule.rate)
        # A cycle of one step would end where it begins, at next to nothing.
        self._rising = torch.optim.lr_scheduler.OneCycleLR(self._optimizer, rates, total) if total > 1 else None

    def update(self, losses: Iterable[Tensor], crew: Crew | None = None) -> float:
        """A step against the gradient of the sum of `losses`, this process's and those of its `crew`; that sum."""
        total = self.gradient(losses, crew)
        self.step()
        return total

    def gradient(self, losses: Iterable[Tensor], crew: Crew | None = None) -> float:
        """That of the sum of `losses`, on every parameter that it hangs on; the sum."""
        self._optimizer.zero_grad()
        total = torch.zeros(1)
        for loss in losses:
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        if crew is not None:
            crew.summed([total, *(one.grad for one in self._parameters if one.grad is not None)])
        self._sound = math.isfinite(float(total))
        return float(total)

    def step(self, shares: Sequence[float] = ()) -> None:
        """One against the gradient, with these `shares` of the rates of the groups, where given; none where the loss is
        no number, for where that began is seen in the weights as they are."""
        if not self._sound:
            return
        rates = [group["lr"] for group in self._optimizer.param_groups]
        for group, share in zip(self._optimizer.param_groups, shares or [1.0] * len(rates), strict=True):
            group["lr"] *= share
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        before = [parameter.detach().clone() for parameter, _ in self._units]
        self._optimizer.step()
        with torch.no_grad():
            for (parameter, unit), known in zip(self._units, before, strict=True):
                parameter.sub_(known).mul_(unit).add_(known)
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        if self._rising is not None:
            self._rising.step()

    def tensors(self) -> dict[str, Tensor]:
        """What AdamW keeps of each parameter, which is nothing of one without a gradient so far."""
        held = (self._optimizer.state.get(parameter, {}) for parameter in self._parameters)
        return {f"{at}.{name}": tensor for at, state in enumerate(held) for name, tensor in state.items()}

    def told(self) -> dict[str, Any]:
        """Where in the cycle it is."""
        rising = {} if self._rising is None else self._rising.state_dict()
        return {"groups": [_plain(group) for group in self._optimizer.param_groups], "rising": _plain(rising)}

    def restore(self, tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> None:
        """Go on from there."""
        for at, parameter in enumerate(self._parameters):
            if held := named(tensors, f"{at}."):
                self._optimizer.state[parameter] = held
        for group, known in zip(self._optimizer.param_groups, told["groups"], strict=True):
            group.update({name: tuple(value) if isinstance(value, list) else value for name, value in known.items()})
        if self._rising is not None:
            self._rising.load_state_dict(self._rising.state_dict() | told["rising"])


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of it, and lists of them."""
    simple = (int, float, tuple, list)
    return {name: value for name, value in state.items() if isinstance(value, simple) and not _holds_tensors(value)}


def _holds_tensors(value: object) -> bool:
    return isinstance(value, list | tuple) and any(not isinstance(one, int | float) for one in value)


def named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
