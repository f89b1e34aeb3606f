"""RegNetY-400MF: Radosavovic et al. 2020, https://arxiv.org/abs/2003.13678 (grouped convs, squeeze-excitation)."""

from collections.abc import Sequence

from torch import Tensor, nn

from tests.nets.seeded import seeded


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        layers = nn.Conv2d(channels, squeezed, 1), nn.ReLU(inplace=True), nn.Conv2d(squeezed, channels, 1), nn.Sigmoid()
        self.avg_pool, self.f_ex = nn.AdaptiveAvgPool2d((1, 1)), nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.f_ex(self.avg_pool(x))


class Block(nn.Module):
    """A residual bottleneck whose middle convolution is grouped."""

    def __init__(self, inputs: int, outputs: int, stride: int, group_width: int) -> None:
        super().__init__()
        self.proj, self.bn = None, None
        if inputs != outputs or stride > 1:
            self.proj, self.bn = nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        self.a, self.a_bn = nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.b = nn.Conv2d(outputs, outputs, 3, stride, 1, groups=outputs // group_width, bias=False)
        self.b_bn, self.se = nn.BatchNorm2d(outputs), SqueezeExcite(outputs, max(1, inputs // 4))
        self.c, self.c_bn = nn.Conv2d(outputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.b_bn(self.b(self.relu(self.a_bn(self.a(x))))))
        y = self.c_bn(self.c(self.se(y)))
        return self.relu((x if self.proj is None else self.bn(self.proj(x))) + y)


class RegNet(nn.Module):
    def __init__(self, depths: Sequence[int], widths: Sequence[int], group_width: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True))
        inputs = 32
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            for i in range(depth):
                self.add_module(f"s{stage + 1}_b{i + 1}", Block(inputs, width, 1 if i else 2, group_width))
                inputs = width
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.children():
            x = block(x) if isinstance(block, Block) else x
        return self.fc(self.pool(x).squeeze(3).squeeze(2))


def net(
    depths: Sequence[int] = (1, 3, 6, 6), widths: Sequence[int] = (48, 104, 208, 440), classes: int = 1000
) -> nn.Module:
    return seeded(RegNet(depths, widths, 8, classes))
