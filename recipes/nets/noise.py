"""Digits in noise of known strength, and a network that finds them: one step of a diffusion model.

The strength is an input of its own, and every norm slides with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from convkit.compress.convs.time_norm import TimeLayerNorm
from convkit.recipes.nets import digits

if TYPE_CHECKING:
    import numpy as np

FAINT, CLEAR = -2.0, 4.0
"""The least and the largest logarithm of signal to noise."""


def training() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """({noisy: [N, 1, 16, 16], log_snr: [N]}, digits without noise [N, 1, 16, 16])."""
    return _noisy(digits.training()[0]["input"], seed=0)


def validation() -> tuple[dict[str, np.ndarray], np.ndarray]:
    return _noisy(digits.validation()[0]["input"], seed=1)


def _noisy(images: np.ndarray, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Signal and noise whose powers add up to one; digits are -1 to 1 in them."""
    import numpy as np

    draw = np.random.default_rng(seed)
    log_snr = draw.uniform(FAINT, CLEAR, len(images)).astype(np.float32)
    signal = (1 / (1 + np.exp(-log_snr)))[:, None, None, None]
    noise = draw.normal(size=images.shape).astype(np.float32)
    noisy = np.sqrt(signal) * (2 * images - 1) + np.sqrt(1 - signal) * noise
    return {"noisy": noisy.astype(np.float32), "log_snr": log_snr}, images


class Slid(nn.Module):
    """x + two convolutions behind a norm that slides with the noise."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.norm = TimeLayerNorm(channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.last = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        normed = self.norm(x.permute(0, 2, 3, 1), log_snr).permute(0, 3, 1, 2)
        made: Tensor = x + self.last(self.first(normed).relu())
        return made


class Denoiser(nn.Module):
    """noisy [N, 1, H, W] at log_snr [N] to what is in it."""

    def __init__(self, channels: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, channels, 3, padding=1), nn.Conv2d(channels, 1, 3, padding=1)
        self.blocks = nn.ModuleList(Slid(channels, dilation) for dilation in dilations)

    def forward(self, noisy: Tensor, log_snr: Tensor) -> Tensor:
        x = self.stem(noisy)
        for block in self.blocks:
            x = block(x, log_snr)
        made: Tensor = torch.sigmoid(self.head(x))
        return made


def build(channels: int = 32) -> nn.Module:
    """The network, whose inputs are called `noisy` and `log_snr`."""
    return Denoiser(channels, (1, 2, 3))
