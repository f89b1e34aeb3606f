"""A 1-D net for series of six sensors: strided convs, batch norm, a gate, mean and maximum over time."""

import torch
from torch import Tensor, nn

from tests.nets.seeded import seeded


class Gated(nn.Module):
    """conv · sigmoid(conv), as WaveNet's gate."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, 2 * channels, 3, padding="same", dilation=dilation)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(nn.functional.glu(self.conv(x), dim=1))


class Watch(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(6, width, 7, 2, 3), nn.BatchNorm1d(width), nn.LeakyReLU(0.1))
        self.blocks = nn.Sequential(*(Gated(width, 2**i) for i in range(3)))
        self.pool = nn.AvgPool1d(3, 2, 1, ceil_mode=True)
        self.head = nn.Sequential(
            nn.Linear(2 * width, width), nn.BatchNorm1d(width), nn.ELU(), nn.Linear(width, classes)
        )

    def forward(self, series: Tensor) -> Tensor:
        x = self.pool(self.blocks(self.stem(series)))
        return self.head(torch.cat([x.mean(-1), x.amax(-1)], dim=1)).log_softmax(1)


def net(width: int = 32, classes: int = 7) -> nn.Module:
    return seeded(Watch(width, classes))
