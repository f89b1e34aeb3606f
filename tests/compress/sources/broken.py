"""Factories that go wrong, each in its own way; and small nets with something special."""

import torch
from torch import Tensor, nn


class Small(nn.Module):
    """conv, batch norm, linear."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels), nn.Linear(channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.bn(self.conv(x)).relu().mean((2, 3)))

    @classmethod
    def wide(cls, channels: int) -> "Small":
        return cls(channels)


class ByValue(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


class ByItem(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, : int(x.max().item())]


class FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, -1)


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("no such head")


class Unknown(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(3, 3, 1), Spectrum())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


class Spectrum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svdvals(x)


class Shared(nn.Module):
    """One convolution called twice, a functional one with a parameter, a frozen buffer, a weight-normed layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.kernel = nn.Parameter(torch.randn(3, 3, 1, 1))
        self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 2, 1))
        self.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3]))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean.view(1, -1, 1, 1)) / 0.5
        x = self.relu(self.conv(self.relu(self.conv(x))))
        return self.normed(nn.functional.conv2d(x, self.kernel))


class InPlace(nn.Module):
    """Reads a tensor after it was written through a view."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        y[:, :1] += 1
        z = y.relu()
        y.view(-1).mul_(3)
        with torch.no_grad():
            z = z + 1
        return y + z


class Several(nn.Module):
    def forward(self, x: Tensor, skip: Tensor, scale: float = 2.0) -> tuple[Tensor, Tensor, Tensor, None]:
        return x, x + skip, (x + skip) * scale, None


class Nested(nn.Module):
    def forward(self, input: Tensor) -> dict[str, object]:  # noqa: A002 - a name that Python has too
        return {"logits": input * 2, "features": [input + 1, input + 2]}


class OneHot(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(x, 4)


def frozen() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).requires_grad_(requires_grad=False)


def diverged() -> nn.Module:
    net = Small()
    net.conv.weight.data[0, 0, 0, 0] = float("nan")
    return net


def infinite() -> nn.Module:
    net = Small()
    net.bn.running_var[0] = float("inf")
    return net


def raises() -> nn.Module:
    raise ValueError("classes must be positive\nand more")


def no_module() -> int:
    return 3


number = 3
