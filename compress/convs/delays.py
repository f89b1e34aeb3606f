"""Learned delays between spiking neurons: each synapse is one tap of a convolution in time, and neurons fire in turn.

Hammouamri et al., Learning Delays in Spiking Neural Networks using Dilated Convolutions with Learnable Spacings, ICLR
2024, equations 2-6. Neurons leak and integrate: v' = v (1 - 1 / tau) + input, tau in steps; at 1 they fire, and begin
anew. Neither a whole delay nor a spike has a gradient: in training they lend that of taps between steps, and of an arc
tangent (Fang et al., Incorporating Learnable Membrane Time Constant, ICCV 2021).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.adopting import Adopting, State, renamed
from convkit.compress.conv import Conv, Example
from convkit.compress.convs.dcls import Dcls1d

_STEEP = 5.0
"""Of the arc tangent, whose slope at the threshold is half of it."""


_PARTS = ((0, "conv"), (1, "norm"))
"""Of the four entries of a layer in the reference implementation's list, those with weights."""


def _lent(value: Tensor, smooth: Tensor) -> Tensor:
    """`value` with the gradient of `smooth`."""
    return value.detach() + (smooth - smooth.detach())


class LIF(nn.Module):
    """currents [N, C, T] to spikes, 0 or 1, of as many steps; without `fires` to potentials."""

    def __init__(self, tau: float, *, threshold: float = 1.0, fires: bool = True) -> None:
        super().__init__()
        if tau < 1:
            raise ValueError(f"a neuron keeps 1 - 1 / tau of its potential: tau is 1 at least, not {tau:g}")
        self.kept, self.threshold, self.fires = 1 - 1 / tau, threshold, fires

    def forward(self, currents: Tensor) -> Tensor:
        steps: list[Tensor] = []
        potential = torch.zeros_like(currents[..., 0])
        for step in range(currents.shape[-1]):
            potential = potential * self.kept + currents[..., step]
            if self.fires:
                spike = (potential >= self.threshold).to(currents.dtype)
                if self.training:
                    spike = _lent(spike, ((potential - self.threshold) * (math.pi / 2 * _STEEP)).atan() / math.pi)
                # That a potential begins anew has no gradient, as in the reference implementation.
                potential = potential * (1 - spike.detach())
                steps.append(spike)
            else:
                steps.append(potential)
        return torch.stack(steps, -1)


class DelayedLayer(nn.Module):
    """spikes [N, Cin, T] to [N, Cout, T + (delays - 1) // 2]: a delay of up to `delays` - 1 steps in each synapse.

    Delays are whole steps, and a synapse is one tap, in training too. The reference implementation has no `norm` in the
    last layer.
    """

    def __init__(
        self, in_features: int, out_features: int, delays: int, tau: float, *, fires: bool = True, norm: bool = True
    ) -> None:
        super().__init__()
        self.conv = Dcls1d(in_features, out_features, 1, dilated_kernel_size=delays, bias=False, version="max")
        self.norm = nn.BatchNorm1d(out_features) if norm else nn.Identity()
        self.neurons = LIF(tau, fires=fires)
        self.delays = delays

    def forward(self, spikes: Tensor) -> Tensor:
        half = self.delays // 2
        whole = (self.conv.P.round() + half).clamp(0, self.delays - 1)
        taps = torch.arange(self.delays, dtype=whole.dtype, device=whole.device)
        kernel = self.conv.weight * (whole[0] == taps).to(whole.dtype)
        if self.training:
            kernel = _lent(kernel, self.conv.kernel())
        padded = F.pad(spikes, (self.delays - 1, (self.delays - 1) // 2))
        made: Tensor = self.neurons(self.norm(F.conv1d(padded, kernel)))
        return made


class DelayedNetwork(Adopting):
    """spikes [N, features[0], T] to potentials [N, features[-1], T + …]: a DelayedLayer between each two `features`.

    The reference implementation has conv, norm, neurons and dropout of all layers in one list, `model`.
    """

    def __init__(self, features: Sequence[int], delays: int, tau: float) -> None:
        super().__init__()
        if len(features) < 2:  # noqa: PLR2004 - what is read and what is made
            raise ValueError(f"a network of delays has two numbers of features or more, not {list(features)}")
        inner = [DelayedLayer(read, made, delays, tau) for read, made in itertools.pairwise(features[:-1])]
        *_, read, made = features
        self.layers = nn.ModuleList([*inner, DelayedLayer(read, made, delays, tau, fires=False, norm=False)])

    def own(self, state: State) -> State:
        places = {
            4 * layer + turn: f"layers.{layer}.{part}." for layer in range(len(self.layers)) for turn, part in _PARTS
        }
        return renamed(state, {rf"model\.{place}\.": name for place, name in places.items()})

    def forward(self, spikes: Tensor) -> Tensor:
        for layer in self.layers:
            spikes = layer(spikes)
        return spikes


def _excited(network: nn.Module) -> None:
    """Norms that let neurons fire."""
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm1d):
            nn.init.uniform_(norm.weight, 1.0, 2.0)
            nn.init.normal_(norm.bias, 0.5, 0.3)


class _Spiking(nn.Module):
    """Two layers on what of a signal is above nothing, and potentials behind."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = DelayedLayer(5, 6, 7, 2.0), DelayedLayer(6, 3, 4, 5.0, fires=False)
        _excited(self)

    def forward(self, signal: Tensor) -> Tensor:
        made: Tensor = self.last(self.first((signal > 0).to(signal.dtype)))
        return made


def _examples() -> Iterator[Example]:
    """Delays of odd and even numbers, spikes and potentials, and a network as published."""
    yield Example(_Spiking(), {"signal": (5, 9)})
    network = DelayedNetwork((4, 6, 3), 5, 1.5)
    _excited(network)
    yield Example(network, {"spikes": (4, 8)})
    yield Example(LIF(3.0), {"currents": (4, 11)})


_STATE = "an error of a potential is there until the neuron fires, or fires in its place"
PART = Conv(
    paper="Learning Delays in Spiking Neural Networks (ICLR 2024)",
    tier="T2",
    layers=(LIF, DelayedLayer, DelayedNetwork),
    examples=_examples,
    usual=lambda: Example(DelayedLayer(140, 256, 25, 1.005), {"spikes": (140, 100)}),
    kept={"Mul": _STATE, "Add": _STATE},
)
