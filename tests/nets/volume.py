"""A 3-D residual net for volumes or clips: strided 3-D convs, group norm, transposed convs back to full size."""

from torch import Tensor, nn

from tests.nets.seeded import seeded


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv3d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm3d(channels)
        self.conv2, self.norm = nn.Conv3d(channels, channels, (1, 3, 3), padding=(0, 1, 1)), nn.GroupNorm(2, channels)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.norm(self.conv2(self.act(self.bn1(self.conv1(x))))))


class Volume(nn.Module):
    """Returns the segmented volume and the class of the whole."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.down = nn.Conv3d(1, width, 3, 2, 1)
        self.blocks = nn.Sequential(Residual(width), nn.MaxPool3d((1, 2, 2)), Residual(width))
        self.up = nn.ConvTranspose3d(width, 2, (2, 4, 4), (2, 4, 4))
        self.pool, self.fc = nn.AdaptiveAvgPool3d(1), nn.Linear(width, classes)

    def forward(self, volume: Tensor) -> dict[str, Tensor]:
        x = self.blocks(self.down(volume))
        return {"mask": self.up(x).softmax(1), "label": self.fc(self.pool(x).flatten(1))}


def net(width: int = 16, classes: int = 5) -> nn.Module:
    return seeded(Volume(width, classes))
