"""MobileNetV2: Sandler et al. 2018, https://arxiv.org/abs/1801.04381."""

from torch import Tensor, nn

from tests.nets.seeded import seeded

SETTING = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks, stride of each stage."""


def conv_bn(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; a residual where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        expand = [] if expansion == 1 else [conv_bn(inputs, hidden)]
        project = [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*expand, conv_bn(hidden, hidden, 3, stride, hidden), *project)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """Features, mean over the image, classifier."""

    def __init__(self, width: float, classes: int) -> None:
        super().__init__()
        inputs, last = round(32 * width), round(1280 * width)
        layers: list[nn.Module] = [conv_bn(3, inputs, 3, 2)]
        for expansion, channels, blocks, stride in SETTING:
            for i in range(blocks):
                outputs = round(channels * width)
                layers.append(InvertedResidual(inputs, outputs, 1 if i else stride, expansion))
                inputs = outputs
        self.features = nn.Sequential(*layers, conv_bn(inputs, last))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(nn.functional.adaptive_avg_pool2d(self.features(x), 1).reshape(x.shape[0], -1))


def net(width: float = 1.0, classes: int = 1000) -> nn.Module:
    return seeded(MobileNetV2(width, classes))
