"""MobileNetV3-Small: Howard et al. 2019, https://arxiv.org/abs/1905.02244 (squeeze-excitation, hard swish)."""

from torch import Tensor, nn

from tests.nets.seeded import seeded

SETTING = (
    (3, 16, 16, True, "relu", 2), (3, 72, 24, False, "relu", 2), (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "swish", 2), (5, 240, 40, True, "swish", 1), (5, 240, 40, True, "swish", 1),
    (5, 120, 48, True, "swish", 1), (5, 144, 48, True, "swish", 1), (5, 288, 96, True, "swish", 2),
    (5, 576, 96, True, "swish", 1), (5, 576, 96, True, "swish", 1),
)  # fmt: skip
"""Kernel, expanded channels, channels, squeeze-excitation, activation, stride of each block."""


def rounded(channels: float) -> int:
    """The nearest multiple of eight, never below nine tenths."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


class SqueezeExcite(nn.Module):
    """Channels weighed by their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, rounded(channels / 4), 1)
        self.fc2 = nn.Conv2d(rounded(channels / 4), channels, 1)
        self.activation, self.gate = nn.ReLU(), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(self.fc2(self.activation(self.fc1(self.avgpool(x))))) * x


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int, groups: int, act: str | None) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    last = [] if act is None else [nn.ReLU(inplace=True) if act == "relu" else nn.Hardswish(inplace=True)]
    return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=0.001), *last)


class Block(nn.Module):
    def __init__(
        self, inputs: int, hidden: int, outputs: int, kernel: int, squeeze: bool, act: str, stride: int
    ) -> None:
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        layers = [] if hidden == inputs else [conv_bn(inputs, hidden, 1, 1, 1, act)]
        layers.append(conv_bn(hidden, hidden, kernel, stride, hidden, act))
        if squeeze:
            layers.append(SqueezeExcite(hidden))
        self.block = nn.Sequential(*layers, conv_bn(hidden, outputs, 1, 1, 1, None))

    def forward(self, x: Tensor) -> Tensor:
        result = self.block(x)
        if self.residual:
            result += x
        return result


class MobileNetV3(nn.Module):
    def __init__(self, width: float, classes: int) -> None:
        super().__init__()
        inputs = rounded(16 * width)
        layers: list[nn.Module] = [conv_bn(3, inputs, 3, 2, 1, "swish")]
        for kernel, hidden, channels, squeeze, act, stride in SETTING:
            outputs = rounded(channels * width)
            layers.append(Block(inputs, rounded(hidden * width), outputs, kernel, squeeze, act, stride))
            inputs = outputs
        self.features = nn.Sequential(*layers, conv_bn(inputs, 6 * inputs, 1, 1, 1, "swish"))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        last = rounded(1024 * width)
        self.classifier = nn.Sequential(
            nn.Linear(6 * inputs, last), nn.Hardswish(inplace=True), nn.Dropout(0.2, inplace=True),
            nn.Linear(last, classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def net(width: float = 1.0, classes: int = 1000) -> nn.Module:
    return seeded(MobileNetV3(width, classes))
