"""Cross-D convolution: a kernel of three axes, which each image turns by an angle of its own and sees a slice of.

Cross-D Conv: Cross-Dimensional Transferable Knowledge Base via Fourier Shifting Operation, 2024, section 3. The turn is
a circular shift along each axis, by products with matrices of cosines: no transform is left. Each image's kernel meets
its patches in a matrix product, so that batches are no matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.adopting import Adopting, State, renamed
from convkit.compress.conv import Conv, Example

_TINY = 1e-8


def shift(by: Tensor, size: int) -> Tensor:
    """The matrices [..., size, size] that move a periodic signal of an odd `size` by `by` [...] places, in Fourier's
    sense.
    """
    place = torch.arange(size, dtype=by.dtype, device=by.device)
    apart = place.reshape(-1, 1) - place - by.reshape(*by.shape, 1, 1)
    waves = [torch.cos(2 * math.pi / size * turn * apart) for turn in range(1, size // 2 + 1)]
    return (1 + 2 * torch.stack(waves).sum(0)) / size if waves else torch.ones_like(apart)


class CrossDConv2d(Adopting):
    """x [N, Cin, H, W] through a kernel [Cout, Cin / groups, k, k, k], to [N, Cout, H', W'] as a convolution of that
    `stride` and `padding` has it. Padding is k // 2, by which an image keeps its size; the reference implementation's
    is 1 for every k unless it is told.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        groups: int = 1,
        stride: int = 1,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"a kernel that is turned by shifts has an odd size, not {kernel_size}")
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"{in_channels} and {out_channels} channels do not part into {groups} groups")
        if stride < 1 or (padding or 0) < 0:
            raise ValueError(f"CrossDConv2d has a stride from 1 on and padding from 0 on, not {stride} and {padding}")
        shape = (out_channels, in_channels // groups, *[kernel_size] * 3)
        self.weight = nn.Parameter(torch.randn(shape) / math.sqrt(math.prod(shape[1:])))
        norm = nn.BatchNorm2d(16)
        self.rotation = nn.Sequential(nn.Conv2d(in_channels, 16, 1), norm, nn.ReLU(), nn.Conv2d(16, 4, 1))
        self.size, self.groups, self.stride = kernel_size, groups, stride
        self.padding = kernel_size // 2 if padding is None else padding

    def own(self, state: State) -> State:
        return renamed(state, {"weights_3d$": "weight", r"rotation_params\.": "rotation."})

    def shifts(self, x: Tensor) -> Tensor:
        """How far each image's kernel is moved along its three axes: [N, 3]."""
        maps = self.rotation(x).flatten(2)
        pooled = (maps.softmax(-1) * maps).sum(-1)
        axis, angle = pooled[:, :3], math.pi / 4 * torch.tanh(pooled[:, 3:])
        axis = axis / (axis.norm(dim=1, keepdim=True) + _TINY)
        turned = torch.cat((axis[:, 1:], axis[:, :1]), 1) - torch.cat((axis[:, 2:], axis[:, :2]), 1)
        return 1 - angle * turned

    def kernel(self, by: Tensor) -> Tensor:
        """Each image's slice [N, Cout, Cin / groups, k, k] of the kernel that is moved by `by` [N, 3]."""
        depth, rows, columns = shift(by, self.size).unsqueeze(2).unbind(1)
        stacked = self.weight.permute(2, 0, 1, 3, 4).reshape(self.size, -1)
        middle = depth[..., self.size // 2, :] @ stacked
        return (rows @ middle.reshape(-1, stacked.shape[1] // self.size**2, self.size, self.size)) @ columns.mT

    def forward(self, x: Tensor) -> Tensor:
        height, width = ((int(edge) + 2 * self.padding - self.size) // self.stride + 1 for edge in x.shape[2:])
        if min(height, width) < 1:
            raise ValueError(
                f"CrossDConv2d of {self.size} does not fit into {list(x.shape)}: pad by more than {self.padding}"
            )
        padded = F.pad(x, [self.padding] * 4)
        down, across = (self.stride * (count - 1) + 1 for count in (height, width))
        places = [(row, column) for row in range(self.size) for column in range(self.size)]
        step = self.stride
        patches = torch.stack([padded[:, :, a : a + down : step, b : b + across : step] for a, b in places], 2)
        kernel = self.kernel(self.shifts(x))
        rows, inside = self.weight.shape[0] // self.groups, self.weight.shape[1] * self.size**2
        made = kernel.reshape(-1, self.groups, rows, inside) @ patches.reshape(-1, self.groups, inside, height * width)
        return made.reshape(-1, self.weight.shape[0], height, width)


def _examples() -> Iterator[Example]:
    """Groups, sizes of kernels, strides, images that are not square; statistics that are not those of a fresh norm."""
    layers = (
        (CrossDConv2d(3, 4, 3), (7, 9)),
        (CrossDConv2d(4, 6, 5, groups=2), (8, 5)),
        (CrossDConv2d(3, 4, 5, stride=2, padding=1), (9, 6)),
    )
    for layer, size in layers:
        norm = layer.rotation[1]
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None:
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.3, 2.0)
        yield Example(layer, {"x": (layer.weight.shape[1] * layer.groups, *size)})


_TURNS = "it turns the whole kernel"
PART = Conv(
    paper="Cross-D Conv: Cross-Dimensional Transferable Knowledge Base (2024)",
    tier="T1",
    layers=(CrossDConv2d,),
    examples=_examples,
    usual=lambda: Example(CrossDConv2d(32, 32, 3), {"x": (32, 32, 32)}),
    kept={
        "Softmax": _TURNS,
        "Tanh": _TURNS,
        "Cos": _TURNS,
        "MatMul": "both sides are computed: neither has a scale that is known",
        "rotation.0": _TURNS,
        "rotation.3": _TURNS,
    },
)
