"""Weights that a layer's reference implementation saved: converted to the layer's own names as they are loaded."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

State = dict[str, Tensor]


class Adopting(nn.Module, ABC):
    """A layer that loads what its reference implementation saved, beside what it saved itself."""

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(_adopt)  # type: ignore[no-untyped-call]

    @abstractmethod
    def own(self, state: State) -> State:
        """`state` of the reference implementation, its names without what stands before the layer's, as this layer has
        it. What is this layer's already stays as it is. Raises ValueError for what it cannot have.
        """


def renamed(state: State, names: Mapping[str, str | None]) -> State:
    """`state` with every name that a pattern matches from its beginning on replaced there; by None it is left out."""
    found = {}
    for name, tensor in state.items():
        pattern = next((one for one in names if re.match(one, name)), None)
        if pattern is None:
            found[name] = tensor
        elif (to := names[pattern]) is not None:
            known = re.sub(pattern, to, name, count=1)
            if known in found or (known != name and known in state):
                raise ValueError(f"{name!r} and another are both {known!r} here: leave one out")
            found[known] = tensor
    return found


def adopted(network: nn.Module, state: State) -> State:
    """`state` of a whole network in the names of its layers, from the outer ones on. Raises ValueError that names the
    layer.
    """
    found = dict(state)
    for name, layer in network.named_modules(remove_duplicate=False):
        if isinstance(layer, Adopting):
            try:
                _replace(layer, found, f"{name}." if name else "")
            except (ValueError, RuntimeError) as error:
                raise ValueError(f"{name or type(layer).__name__}: {error}") from error
    return found


def _replace(layer: Adopting, state: State, prefix: str) -> None:
    theirs = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    ours = layer.own(theirs)
    for name in theirs:
        del state[prefix + name]
    state.update({prefix + name: tensor for name, tensor in ours.items()})


def _adopt(layer: nn.Module, state: State, prefix: str, *rest: Any) -> None:  # noqa: ANN401 - torch's
    *_, messages = rest
    assert isinstance(layer, Adopting)  # noqa: S101 - no other registers it
    try:
        _replace(layer, state, prefix)
    except (ValueError, RuntimeError) as error:
        messages.append(f"{prefix.removesuffix('.') or type(layer).__name__}: {error}")
