"""Hyper-kernels: kernels as large as the image that a small network makes of coordinates, and local ones of the image.

HyperZZW operators of the Terminator network, 2024, sections 3.1-3.3. What depends on coordinates alone is a constant;
local kernels depend on the image, and the layer takes one image at a time: the reference implementation takes a batch's
mean there. It also scales `output_linear` by 1 / k at its first forward pass, after loading too; here weights are taken
as they are stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.adopting import Adopting, State, renamed
from convkit.compress.conv import Conv, Example

_ALPHA, _BETA = 1.0, 0.1
"""Of the renormalisation: the reference implementation does not store them, and they are these again once loaded."""


class Linear2d(nn.Conv2d):
    """A linear layer over axis 1 of [N, C, H, W]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)


class Waves(nn.Module):
    """Sines of a linear layer of coordinates."""

    def __init__(self, hidden: int, omega_0: float) -> None:
        super().__init__()
        self.linear = Linear2d(2, hidden)
        with torch.no_grad():
            self.linear.weight.mul_(2 * math.pi * omega_0)
        nn.init.zeros_(self.linear.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.linear(x))


class _Slow(Adopting):
    """What both networks of coordinates are made of. Names are those of the reference implementation, which may wrap
    them in a SlowNet.
    """

    def __init__(self, channels: int, kernel_size: int, hidden: int, layers: int, omega_0: float) -> None:
        super().__init__()
        self.linears = nn.ModuleList(Linear2d(hidden, hidden) for _ in range(layers))
        self.filters = nn.ModuleList(Waves(hidden, omega_0) for _ in range(layers + 1))
        self.output_linear = Linear2d(hidden, channels)
        self.size = kernel_size

    def own(self, state: State) -> State:
        return renamed(state, {r"Kernel\.": "", "train_length$": None})


class Magnet(_Slow):
    """The network of coordinates: [1, channels, k, k]."""

    def __init__(
        self, channels: int, kernel_size: int, *, hidden: int = 16, layers: int = 2, omega_0: float = 1.0
    ) -> None:
        super().__init__(channels, kernel_size, hidden, layers, omega_0)
        self.bias_p = nn.Parameter(torch.zeros(1, 1, kernel_size, kernel_size))

    def forward(self) -> Tensor:
        place = _coordinates(self.size).to(self.bias_p)
        made = self.filters[0](place)
        for wave, linear in zip(list(self.filters)[1:], self.linears, strict=True):
            made = wave(place) * linear(made) + self.bias_p
        found: Tensor = self.output_linear(made)
        return found


class LocalMagnet(_Slow):
    """The network of coordinates and of one image x [1, C, H, W]: a kernel [1, C, k, k].

    Hidden values are added to a tenth of their direction; a gradient passes through the direction alone, as in the
    reference implementation.
    """

    def __init__(
        self, channels: int, kernel_size: int, *, hidden: int = 16, layers: int = 2, omega_0: float = 1.0
    ) -> None:
        super().__init__(channels, kernel_size, hidden, layers, omega_0)
        self.bias_pk = nn.Parameter(torch.zeros(1, 1, kernel_size, kernel_size))
        self.fast_reduce, self.fast_fc1 = Linear2d(channels, hidden), Linear2d(hidden, hidden)
        self.fast_linears_x = nn.ModuleList(Linear2d(hidden, hidden) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] != 1:
            raise ValueError("kernels that an image makes are one image's: HyperZZW takes a batch of 1")
        seen = F.gelu(self.fast_fc1(self.fast_reduce(F.adaptive_avg_pool2d(x, self.size))))
        place = _coordinates(self.size).to(x)
        made = self.filters[0](place)
        for wave, linear, fast in zip(list(self.filters)[1:], self.linears, self.fast_linears_x, strict=True):
            made = wave(place) * linear(made) + self.bias_pk
            made = (_ALPHA * made.detach() + _BETA * _direction(made)) * fast(seen)
        found: Tensor = self.output_linear(made)
        return found


def _direction(x: Tensor) -> Tensor:
    """Each channel of x [1, C, k, k] over its length."""
    length: Tensor = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)
    return x / length.clamp(min=1e-12)


def _coordinates(size: int) -> Tensor:
    """[1, 2, size, size] from -1 to 1."""
    line = torch.linspace(-1, 1, size)
    return torch.stack(torch.meshgrid(line, line, indexing="ij")).unsqueeze(0)


class HyperGlobal(nn.Module):
    """x [N, C, S, S]: (x times its hyper-kernel) as matrices, times x. The authors' networks have `hidden` 64."""

    def __init__(self, channels: int, size: int, *, hidden: int = 16, layers: int = 2, omega_0: float = 1.0) -> None:
        super().__init__()
        self.slow_net = Magnet(channels, size, hidden=hidden, layers=layers, omega_0=omega_0)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] != self.slow_net.size or x.shape[3] != self.slow_net.size:
            size = self.slow_net.size
            raise ValueError(
                f"a global hyper-kernel of {size}x{size} meets images of its size, not of {list(x.shape[2:])}"
            )
        made: Tensor = (x * self.slow_net()) @ x
        return made


class LocalConv(nn.Module):
    """Each channel of x [1, C, H, W] convolved with its own of a kernel [1, C, k, k]; channels mixed, brought to mean 0
    and variance 1 by the image's own statistics, and a GELU.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel_mixer = Linear2d(channels, channels)

    def forward(self, kernel: Tensor, x: Tensor) -> Tensor:
        size, (height, width) = kernel.shape[2], x.shape[2:]
        if x.shape[0] != 1 or size % 2 == 0:
            raise ValueError(f"LocalConv takes one image and a kernel of odd size, not {x.shape[0]} and {size}")
        padded = F.pad(x, [size // 2] * 4)
        made: list[Tensor] = [
            padded[:, :, a : a + height, b : b + width] * kernel[:, :, a : a + 1, b : b + 1]
            for a in range(size)
            for b in range(size)
        ]
        return F.gelu(F.instance_norm(self.channel_mixer(torch.stack(made).sum(0))))


class HyperLocal(Adopting):
    """x [1, C, H, W] through a LocalConv whose kernel the image makes. The authors' networks have `hidden` 32."""

    def __init__(
        self, channels: int, kernel_size: int, *, hidden: int = 16, layers: int = 2, omega_0: float = 1.0
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"a local hyper-kernel has an odd size, not {kernel_size}")
        self.slow_net = LocalMagnet(channels, kernel_size, hidden=hidden, layers=layers, omega_0=omega_0)
        self.local_conv = LocalConv(channels)
        self.bias = nn.Parameter(torch.zeros(1))

    def own(self, state: State) -> State:
        return renamed(state, {"fast_bias$": "bias"})

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.local_conv(self.slow_net(x), x) + self.bias
        return made


def _examples() -> Iterator[Example]:
    """A global kernel in a batch, and local ones of single images."""
    yield Example(HyperGlobal(3, 8), {"x": (3, 8, 8)})
    for channels, size, image, layers in ((3, 3, (7, 9), 2), (2, 5, (8, 6), 3)):
        layer = HyperLocal(channels, size, layers=layers)
        nn.init.normal_(layer.slow_net.bias_pk)
        yield Example(layer, {"x": (channels, *image)}, batches=(1,))


_KERNELS = "it makes the kernel, whose scale no calibration knows"
PART = Conv(
    paper="HyperZZW: hyper-kernels and hyper-interaction (2024)",
    tier="T2",
    layers=(Linear2d, Waves, Magnet, LocalMagnet, HyperGlobal, LocalConv, HyperLocal),
    examples=_examples,
    usual=lambda: Example(HyperLocal(32, 7), {"x": (32, 32, 32)}, batches=(1,)),
    kept={
        "MatMul": _KERNELS,
        "Mul": _KERNELS,
        **{f"slow_net.{name}": _KERNELS for name in ("fast_reduce", "fast_fc1", "output_linear")},
        "local_conv.channel_mixer": _KERNELS,
        "slow_net.linears.*": _KERNELS,
        "slow_net.fast_linears_x.*": _KERNELS,
    },
)
