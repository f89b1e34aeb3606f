"""A 1-D net for tokens: their embedding beside their one-hot codes, a conv over time, a mean."""

import torch
from torch import Tensor, nn

from tests.nets.seeded import seeded

TOKENS = 32


class Words(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.embedding, self.conv = nn.Embedding(TOKENS, width), nn.Conv1d(width + TOKENS, width, 3, padding=1)
        self.fc = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        x = torch.cat([self.embedding(tokens), nn.functional.one_hot(tokens, TOKENS).float()], dim=2)
        return self.fc(self.conv(x.transpose(1, 2)).relu().mean(2))


def net(width: int = 12, classes: int = 4) -> nn.Module:
    return seeded(Words(width, classes))
