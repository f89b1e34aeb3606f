"""EvoNorm B0 and S0: normalization and activation in one layer, found by search.

Liu et al., Evolving Normalization-Activation Layers, NeurIPS 2020, table 2. The input stands in the denominator too:
neither folds into a convolution.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from convkit.compress.conv import Conv, Example


class EvoNorm2dB0(nn.Module):
    """x [N, C, H, W] over the larger of sqrt(batch variance + eps) and v x + sqrt(its own variance + eps), then a scale
    and a shift of each channel. Names are timm's; trained, the batch variance is that of its buffer.
    """

    running_var: Tensor

    def __init__(self, num_features: int, *, eps: float = 1e-3, momentum: float = 0.1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.v = nn.Parameter(torch.ones(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.eps, self.momentum = eps, momentum

    def forward(self, x: Tensor) -> Tensor:
        _check(x, len(self.weight), type(self).__name__)
        weight, bias, v = (each.reshape(-1, 1, 1) for each in (self.weight, self.bias, self.v))
        own = (x.var((2, 3), unbiased=False, keepdim=True) + self.eps).sqrt()
        batch = (self._variance(x).reshape(-1, 1, 1) + self.eps).sqrt()
        return x / torch.maximum(batch, x * v + own) * weight + bias

    def _variance(self, x: Tensor) -> Tensor:
        """Of each channel over the batch; while it learns, the buffer follows with Bessel's correction."""
        if not self.training:
            return self.running_var
        found = x.var((0, 2, 3), unbiased=False)
        count = x.numel() / x.shape[1]
        with torch.no_grad():
            self.running_var.lerp_(found * (count / (count - 1)), self.momentum)
        return found


class EvoNorm2dS0(nn.Module):
    """x sigmoid(v x) / sqrt(variance of its group + eps), then a scale and a shift of each channel: nothing of the
    batch. `unbiased`: some implementations divide the variance by one less.
    """

    def __init__(self, num_features: int, groups: int = 32, *, eps: float = 1e-5, unbiased: bool = False) -> None:
        super().__init__()
        if num_features % groups:
            raise ValueError(f"{num_features} channels do not part into {groups} groups of EvoNorm S0")
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.v = nn.Parameter(torch.ones(num_features))
        self.groups, self.eps, self.unbiased = groups, eps, unbiased

    def forward(self, x: Tensor) -> Tensor:
        _check(x, len(self.weight), type(self).__name__)
        weight, bias, v = (each.reshape(-1, 1, 1) for each in (self.weight, self.bias, self.v))
        grouped = x.reshape(x.shape[0], self.groups, -1, *x.shape[2:])
        spread = (grouped.var((2, 3, 4), unbiased=self.unbiased, keepdim=True) + self.eps).sqrt()
        normed = (x * torch.sigmoid(x * v)).reshape(grouped.shape) / spread
        return normed.reshape(x.shape) * weight + bias


def _check(x: Tensor, channels: int, name: str) -> None:
    if x.ndim != 4 or x.shape[1] != channels:  # noqa: PLR2004 - NCHW
        raise ValueError(f"{name} takes [N, {channels}, H, W], not {list(x.shape)}")


def _examples() -> Iterator[Example]:
    """Both, with parameters and statistics that are not fresh; both variances."""
    for layer in (EvoNorm2dB0(6), EvoNorm2dS0(8, 4), EvoNorm2dS0(6, 3, unbiased=True)):
        for parameter in layer.parameters():
            nn.init.normal_(parameter, mean=0.5)
        if isinstance(layer, EvoNorm2dB0):
            nn.init.uniform_(layer.running_var, 0.3, 2.0)
        yield Example(layer, {"x": (len(layer.weight), 7, 10)})


_DIVIDES = "what is divided by is small where an image is flat"
PART = Conv(
    paper="Evolving Normalization-Activation Layers (NeurIPS 2020)",
    tier="T1",
    layers=(EvoNorm2dB0, EvoNorm2dS0),
    examples=_examples,
    usual=lambda: Example(EvoNorm2dS0(96), {"x": (96, 56, 56)}),
    kept={"Div": _DIVIDES, "Sqrt": _DIVIDES},
)
