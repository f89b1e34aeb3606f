"""Which of twelve pitches a tone has: generated tones with overtones, in any of three octaves, in noise; and networks
over their waves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from convkit.compress.convs.late_fusion import LateFusion, TemporalBlock
from convkit.compress.convs.lssl import LSSL
from convkit.compress.convs.sgconv import GConv
from convkit.compress.convs.times_block import TimesBlock

if TYPE_CHECKING:
    import numpy as np

LENGTH, RATE, LOWEST, PITCHES = 512, 4000.0, 110.0, 12
"""Samples, samples a second, and Hertz of the lowest tone."""


def training() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """({input: [3000, 1, 512]}, pitches)."""
    return tones(3000, seed=0)


def validation() -> tuple[dict[str, np.ndarray], np.ndarray]:
    return tones(600, seed=1)


def tones(count: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Tones with four partials of random strength and phase, and noise of a third of their power."""
    import numpy as np

    draw = np.random.default_rng(seed)
    pitch, octave = draw.integers(PITCHES, size=count), draw.integers(3, size=count)
    hertz = LOWEST * 2 ** (pitch / PITCHES + octave)
    time = np.arange(LENGTH) / RATE
    partials = np.arange(1, 5)
    strength = draw.uniform(0.2, 1, (count, 4, 1)) / partials[:, None]
    phase = draw.uniform(0, 2 * np.pi, (count, 4, 1))
    below = (hertz[:, None] * partials < RATE / 2)[..., None]
    waves = (below * strength * np.sin(2 * np.pi * hertz[:, None, None] * partials[:, None] * time + phase)).sum(1)
    waves /= waves.std(1, keepdims=True)
    waves += draw.normal(0, 1 / 3**0.5, waves.shape)
    return {"input": waves[:, None].astype(np.float32)}, pitch


class Residual(nn.Module):
    """x + a layer of it behind a norm."""

    def __init__(self, layer: nn.Module, channels: int) -> None:
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(channels), layer

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = x + self.layer(self.norm(x))
        return made


def _headed(*body: nn.Module, channels: int) -> nn.Module:
    return nn.Sequential(*body, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(channels, PITCHES))


def long(layer: str = "sgconv", channels: int = 32) -> nn.Module:
    """Two layers whose kernels are as long as the wave, of which a stem keeps every fourth sample."""
    length = LENGTH // 4
    stem = nn.Conv1d(1, channels, 16, stride=4, padding=6)
    layers = (LSSL(channels, order=16) if layer == "lssl" else GConv(channels, length, kernel_dim=16) for _ in range(2))
    return _headed(stem, *(Residual(each, channels) for each in layers), channels=channels)


def ensemble(members: int = 3, channels: int = 16) -> nn.Module:
    """Residual networks in time, each on its own, fused late into one."""
    return nn.Sequential(LateFusion([
        _headed(
            nn.Conv1d(1, channels, 9, stride=2, padding=4),
            TemporalBlock(channels, 2 * channels, 9, stride=2),
            TemporalBlock(2 * channels, 2 * channels, 9, stride=2),
            nn.ReLU(),
            channels=2 * channels,
        )
        for _ in range(members)
    ]))  # fmt: skip


def periods() -> nn.Module:
    """TimesNet's block and a linear layer over every step."""
    return nn.Sequential(_Periods())


class _Periods(nn.Module):
    """TimesNet's block over what a stem makes of the wave: its periods are rows of images."""

    def __init__(self, channels: int = 12, frequencies: tuple[int, ...] = (4, 8, 16)) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, channels, 16, stride=4, padding=6)
        self.block = TimesBlock(LENGTH // 4, frequencies, d_model=channels, d_ff=channels)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(channels * LENGTH // 4, PITCHES))

    def forward(self, wave: Tensor) -> Tensor:
        made: Tensor = self.head(self.block(self.stem(wave).relu().mT).mT)
        return made
