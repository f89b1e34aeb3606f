"""Norms whose weight and bias slide between two values as time goes on, in place of a network that computes them.

Liu et al., DiMR: Alleviating Distortion in Image Generation via Multi-Resolution Diffusion Models, NeurIPS 2024,
equations 3-5. At a fixed time it is an ordinary norm.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.adopting import Adopting, State, renamed
from convkit.compress.conv import Conv, Example


class TimeDependentParameter(nn.Module):
    """[C] at the logarithm `log_snr` [N] of signal to noise: [N, C]. Names are those of the reference implementation,
    which stores the slope less one.
    """

    def __init__(self, channels: int, value: float) -> None:
        super().__init__()
        self.param0 = nn.Parameter(torch.full((channels,), value))
        self.param1 = nn.Parameter(torch.full((channels,), value))
        self.nodecay_weight = nn.Parameter(torch.zeros(channels))
        self.nodecay_bias = nn.Parameter(torch.zeros(channels))

    def forward(self, log_snr: Tensor) -> Tensor:
        time = log_snr.unsqueeze(-1) / 4
        share = torch.sigmoid((self.nodecay_weight + 1) * time + self.nodecay_bias)
        return share * self.param0 + (1 - share) * self.param1


class TimeLayerNorm(nn.Module):
    """x [N, …, C] at `log_snr` [N]."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = TimeDependentParameter(channels, 1.0)
        self.bias = TimeDependentParameter(channels, 0.0)
        self.eps = eps

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        normed = F.layer_norm(x, x.shape[-1:], eps=self.eps)
        return normed * _beside(self.weight(log_snr), x) + _beside(self.bias(log_snr), x)

    def at(self, log_snr: float) -> nn.LayerNorm:
        """The ordinary norm that it is at one time."""
        found = nn.LayerNorm(self.weight.param0.shape[0], self.eps)
        time = torch.tensor([log_snr], dtype=self.weight.param0.dtype)
        with torch.no_grad():
            found.weight.copy_(self.weight(time)[0])
            found.bias.copy_(self.bias(time)[0])
        return found


class TimeRMSNorm(Adopting):
    """x [N, …, C] over its root mean square, to which `eps` is added outside of the root, at `log_snr` [N]. The
    reference implementation calls the weight `scale` and the bias, where there is one, `offset`.
    """

    def __init__(self, channels: int, eps: float = 1e-8, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = TimeDependentParameter(channels, 1.0)
        self.bias = TimeDependentParameter(channels, 0.0) if bias else None
        self.eps = eps

    def own(self, state: State) -> State:
        return renamed(state, {r"scale\.": "weight.", r"offset\.": "bias."})

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True) / x.shape[-1] ** 0.5
        # Half precision has not the reference implementation's eps.
        made: Tensor = x / (size + max(self.eps, torch.finfo(x.dtype).tiny)) * _beside(self.weight(log_snr), x)
        return made if self.bias is None else made + _beside(self.bias(log_snr), x)


def _beside(value: Tensor, x: Tensor) -> Tensor:
    """[N, C] as [N, 1 …, C]."""
    return value.reshape(value.shape[0], *[1] * (x.ndim - 2), value.shape[-1])


def _examples() -> Iterator[Example]:
    """Rows and images with the channels last, parameters that differ at the two ends of time."""
    for layer, shape in ((TimeLayerNorm(6), (5, 6)), (TimeRMSNorm(7), (3, 4, 7)), (TimeLayerNorm(3), (3,)),
                         (TimeRMSNorm(4, bias=True), (4,))):  # fmt: skip
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
        yield Example(layer, {"x": shape, "log_snr": ()})


_EXACT = "it scales every channel: its error is the whole map's"
PART = Conv(
    paper="DiMR: Alleviating Distortion in Image Generation (NeurIPS 2024)",
    tier="T1",
    layers=(TimeDependentParameter, TimeLayerNorm, TimeRMSNorm),
    examples=_examples,
    usual=lambda: Example(TimeLayerNorm(256), {"x": (1024, 256), "log_snr": ()}),
    kept={"Sigmoid": _EXACT, "LayerNormalization": _EXACT},
)
