"""Networks of series: residual convolutions in time, attention between variables, and several networks that vote.

Residual blocks with the norm first (He et al., Identity Mappings in Deep Residual Networks, 2016, equation 5) over
joints of skeletons, whose networks are fused late; attention (Vaswani et al., 2017, section 3.2) behind a convolution
of each variable. All in ordinary operators.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.adopting import Adopting, State, renamed
from convkit.compress.conv import Conv, Example


def _ended(x: Tensor, kernel_size: int) -> Tensor:
    """x [N, C, T] for a convolution that pads (kernel_size - 1) // 2: an even kernel reads one more at the end, as
    Keras' padding "same" has it.
    """
    return x if kernel_size % 2 else F.pad(x, (0, 1))


class TemporalBlock(Adopting):
    """x [N, C, T] to [N, out_channels, T / stride], rounded up: two convolutions in time, each behind a norm and a
    ReLU, beside x. It loads the names of hsd1503/resnet1d, too, whose blocks but the first hold a first norm that they
    do not use: those are not `normed`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, normed: bool = True
    ) -> None:
        super().__init__()
        self.normed = normed
        self.kernel_size, pad = kernel_size, (kernel_size - 1) // 2
        self.norm1, self.norm2 = nn.BatchNorm1d(in_channels), nn.BatchNorm1d(out_channels)
        self.conv1 = nn.Conv1d(in_channels, out_channels, kernel_size, stride, pad)
        self.conv2 = nn.Conv1d(out_channels, out_channels, kernel_size, padding=pad)
        same = in_channels == out_channels and stride == 1
        self.skip = nn.Identity() if same else nn.Conv1d(in_channels, out_channels, 1, stride)

    def own(self, state: State) -> State:
        """Of its Bottleneck, whose convolutions stand in a layer that pads."""
        return renamed(state, {r"bn(\d)\.": r"norm\1.", r"(conv\d)\.conv\.": r"\1."})

    def forward(self, x: Tensor) -> Tensor:
        first = self.norm1(x).relu() if self.normed else x
        made = self.conv1(_ended(first, self.kernel_size))
        made = self.conv2(_ended(self.norm2(made).relu(), self.kernel_size))
        summed: Tensor = self.skip(x) + made
        return summed


class VariableAttention(nn.Module):
    """x [N, V, T] to [N, out_features]: a convolution of each variable, attention between variables, a linear layer."""

    def __init__(
        self, variables: int, length: int, out_features: int, *, filters: int = 8, kernel_size: int = 3, heads: int = 2
    ) -> None:
        super().__init__()
        size = filters * length
        if size % heads:
            raise ValueError(f"{size} features of a variable do not part into {heads} heads")
        pad = (kernel_size - 1) // 2
        self.conv = nn.Conv1d(variables, variables * filters, kernel_size, padding=pad, groups=variables)
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))
        self.mixed, self.out = nn.Linear(size, size), nn.Linear(variables * size, out_features)
        self.variables, self.heads, self.kernel_size = variables, heads, kernel_size

    def forward(self, x: Tensor) -> Tensor:
        seen = self.conv(_ended(x, self.kernel_size)).relu().reshape(x.shape[0], self.variables, -1)
        query, key, value = (self._heads(layer(seen)) for layer in (self.query, self.key, self.value))
        share = (query @ key.mT / math.sqrt(query.shape[-1])).softmax(-1)
        joined = (share @ value).transpose(1, 2).flatten(2)
        made: Tensor = self.out((seen + self.mixed(joined)).flatten(1))
        return made

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], self.variables, self.heads, -1).transpose(1, 2)


class LateFusion(nn.Module):
    """The mean of what several networks make of one input: an ensemble as one network."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        votes = [network(x) for network in self.networks]
        return torch.stack(votes).mean(0)


class _Pooled(nn.Module):
    """Blocks, the mean over time, and classes."""

    def __init__(self, blocks: Sequence[nn.Module], channels: int, classes: int) -> None:
        super().__init__()
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.head(self.blocks(x).mean(-1))
        return made


def _examples() -> Iterator[Example]:
    """An ensemble of residual networks with statistics of their own, attention, and a block with an even kernel; odd
    and even lengths.
    """
    networks = []
    for kernel in (3, 5):
        blocks = TemporalBlock(6, 8, kernel, stride=2), TemporalBlock(8, 8, kernel)
        networks.append(_Pooled(blocks, 8, 4))
    for norm in (module for network in networks for module in network.modules()):
        if isinstance(norm, nn.BatchNorm1d) and norm.running_mean is not None and norm.running_var is not None:
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.3, 2.0)
    yield Example(LateFusion(networks), {"x": (6, 21)})
    yield Example(VariableAttention(4, 12, 3), {"x": (4, 12)})
    yield Example(TemporalBlock(5, 6, 4, stride=2), {"x": (5, 11)})


PART = Conv(
    paper="Temporal convolutions with attention, and skeleton ensembles fused late",
    tier="T1",
    layers=(TemporalBlock, VariableAttention, LateFusion),
    examples=_examples,
    usual=lambda: Example(VariableAttention(12, 64, 8), {"x": (12, 64)}),
    kept={"Softmax": "it decides how much every variable counts"},
)
