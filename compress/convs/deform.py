"""Deformable convolution: each tap of a kernel reads where the image itself says, and its hardware-friendly variants.

Dai et al., Deformable Convolutional Networks, ICCV 2017, equation 2; Zhu et al., v2, CVPR 2019, equation 1 (a mask of
each tap). Bounded, square and rounded offsets and the depthwise block: Huang et al., CoDeNet, FPGA 2021, section 3.
Taps are read first and multiplied behind as a convolution of one position, which runs in low precision as any other.
Weights of torchvision, and of mmcv's, CharlesShang/DCNv2's and CoDeNet's packs, load as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.adopting import Adopting, State, renamed
from convkit.compress.conv import Conv, Example

_SPATIAL = 2
Pair = int | Sequence[int]
"""One number for rows and columns, or two."""


def read_taps(x: Tensor, offset: Tensor, kernel: Sequence[int], stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """x [N, C, H, W] at every tap, moved by `offset` [N, 2 G K, Ho, Wo] (rows and columns by turns, for each of G parts
    of the channels): [N, C, K, Ho, Wo]. It is bilinear between pixels, and nothing outside.
    """
    batch, channels, height, width = x.shape
    taps = math.prod(kernel)
    parts = offset.shape[1] // (2 * taps)
    steps, pads, apart = _pair("stride", stride), _pair("padding", padding), _pair("dilation", dilation)
    size = [
        (edge + 2 * pad - wide * (k - 1) - 1) // step + 1
        for edge, k, step, pad, wide in zip((height, width), kernel, steps, pads, apart, strict=True)
    ]
    if offset.shape[1] % (2 * taps) or channels % parts or list(offset.shape[2:]) != size:
        wanted = f"[N, {2 * taps} for each part of {channels} channels, {size[0]}, {size[1]}]"
        raise ValueError(f"the offsets of a deformable convolution are {wanted}, not {list(offset.shape)}")
    rows, columns = (
        torch.arange(count, dtype=x.dtype, device=x.device) * step - pad
        for count, step, pad in zip(size, steps, pads, strict=True)
    )
    moved = offset.reshape(batch * parts, taps, 2, *size)
    split = x.reshape(batch * parts, channels // parts, height, width)
    read = []
    for tap in range(taps):
        row, column = divmod(tap, kernel[1])
        y = moved[:, tap, 0] + rows.reshape(-1, 1) + row * apart[0]
        z = moved[:, tap, 1] + columns + column * apart[1]
        # Places of pixels' centres where the image goes from -1 to 1: of one pixel there are no corners to align.
        grid = torch.stack(((2 * z + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
        read.append(F.grid_sample(split, grid, "bilinear", "zeros", align_corners=False))
    return torch.stack(read, dim=2).reshape(batch, channels, taps, *size)


class DeformConv2d(nn.Module):
    """x [N, Cin, H, W], offset as `read_taps` takes it and, modulated, mask [N, G K, Ho, Wo]. `weight` [Cout, Cin /
    groups, kh, kw] and `bias` are those of torchvision's layer of this name, sizes one number or two as there.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        *,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"{in_channels} and {out_channels} channels do not part into {groups} groups")
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *_pair("kernel_size", kernel_size)))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.stride, self.padding = _pair("stride", stride), _pair("padding", padding)
        self.dilation, self.groups = _pair("dilation", dilation), groups
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        taps = read_taps(x, offset, self.weight.shape[_SPATIAL:], self.stride, self.padding, self.dilation)
        return weighed(taps, self.weight, self.bias, self.groups, mask)


def weighed(taps: Tensor, weight: Tensor, bias: Tensor | None, groups: int = 1, mask: Tensor | None = None) -> Tensor:
    """The convolution of `taps` [N, C, K, Ho, Wo] that `read_taps` has read."""
    if mask is not None:
        count = taps.shape[2]
        masked = taps.reshape(taps.shape[0], mask.shape[1] // count, -1, *taps.shape[2:])
        taps = (masked * mask.reshape(taps.shape[0], -1, 1, count, *mask.shape[2:])).reshape(taps.shape)
    flat = weight.reshape(weight.shape[0], -1, 1, 1)
    return F.conv2d(taps.flatten(1, 2), flat, bias, groups=groups)


class DeformBlock(Adopting):
    """x [N, C, H, W] with offsets that a convolution finds, to [N, out_channels, (H - 1) // stride + 1, …].

    `bound`: offsets stay within so many pixels. `square`: one number s for each place, from 0 to the bound, that widens
    the whole kernel: a dilation of dilation + s. `depthwise`: channels are mixed first, by a convolution of one
    position, and each then has its own kernel. `rounded`: to whole pixels, of which the paper tells and the authors'
    repository has nothing. `deform_groups` parts of the channels move each by their own. Where it is dilated, so is the
    convolution that finds the offsets, as mmcv's; DCNv2's is not, and finds more offsets then than there are places.

    Weights of mmcv's DeformConv2dPack and ModulatedDeformConv2dPack, DCNv2's DCN and CoDeNet's layers load; a bias that
    they lack is nothing, and offsets of a 1x1 convolution (CoDeNet's DeformConvOriginal) stand in the kernel's middle.
    """

    def __init__(  # noqa: PLR0913 - those of the packs, and the variants
        self,
        in_channels: int,
        out_channels: int,
        *,
        bound: float | None = None,
        square: bool = False,
        rounded: bool = False,
        depthwise: bool = False,
        modulated: bool = False,
        kernel_size: Pair = 3,
        stride: Pair = 1,
        dilation: Pair = 1,
        groups: int = 1,
        deform_groups: int = 1,
    ) -> None:
        super().__init__()
        if square and (bound is None or modulated):
            raise ValueError("square offsets have a bound and no mask")
        if depthwise and groups != 1:
            raise ValueError(f"a depthwise block has groups of its own, not {groups}")
        kernel, apart = _pair("kernel_size", kernel_size), _pair("dilation", dilation)
        if any(edge % 2 == 0 for edge in kernel):
            raise ValueError(f"a deformable block has an odd kernel, not {list(kernel)}")
        read = out_channels if depthwise else in_channels
        if read % deform_groups:
            raise ValueError(f"{read} channels do not part into {deform_groups} that move alike")
        pads = apart[0] * (kernel[0] // 2), apart[1] * (kernel[1] // 2)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1) if depthwise else None
        found = deform_groups * (1 if square else math.prod(kernel) * (3 if modulated else 2))
        if depthwise:
            self.offset = nn.Conv2d(read, found, 1, _pair("stride", stride))
        else:
            self.offset = nn.Conv2d(read, found, kernel, _pair("stride", stride), pads, apart)
        self.conv = DeformConv2d(
            read,
            out_channels,
            kernel,
            stride=stride,
            padding=pads,
            dilation=apart,
            groups=read if depthwise else groups,
        )
        self.bound, self.square, self.rounded, self.deform_groups = bound, square, rounded, deform_groups

    def own(self, state: State) -> State:
        if "weight" not in state:
            return state
        found = renamed(state, _THEIRS)
        biases = {name: value for name, value in self.named_parameters() if name in {"conv.bias", "pointwise.bias"}}
        found |= {name: state["weight"].new_zeros(bias.shape) for name, bias in biases.items() if name not in found}
        kernel = self.offset.weight.shape[_SPATIAL:]
        if "offset.weight" in found and math.prod(found["offset.weight"].shape[_SPATIAL:]) == 1:
            around = [edge // 2 for edge in reversed(kernel) for _ in range(2)]
            found["offset.weight"] = F.pad(found["offset.weight"], around)
        return found

    def forward(self, x: Tensor) -> Tensor:
        if self.pointwise is not None:
            x = self.pointwise(x)
        kernel = self.conv.weight.shape[_SPATIAL:]
        moves = 2 * math.prod(kernel) * self.deform_groups
        found = self.offset(x)
        offset, mask = found[:, :moves], found[:, moves:]
        if self.bound is not None:
            offset = offset.clamp(0.0 if self.square else -self.bound, self.bound)
        if self.rounded:
            offset = offset.round()
        if self.square:
            rows, columns = (torch.arange(edge, dtype=x.dtype, device=x.device) - edge // 2 for edge in kernel)
            offset = (offset.unsqueeze(2) * torch.cartesian_prod(rows, columns).reshape(1, 1, -1, 1, 1)).flatten(1, 2)
        made: Tensor = self.conv(x, offset, mask.sigmoid() if found.shape[1] > moves else None)
        return made


_THEIRS = {
    r"(weight|bias)$": r"conv.\1",
    r"conv_offset(_mask)?\.": "offset.",
    r"point_wise\.": "pointwise.",
    r"offset_template$": None,
}


def _pair(name: str, value: Pair) -> tuple[int, int]:
    """Of rows and of columns."""
    pair = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, Sequence) else ()
    if len(pair) != _SPATIAL or not all(isinstance(one, int) for one in pair):
        raise ValueError(f"{name} of a deformable convolution is a whole number or two, not {value!r}")
    return pair[0], pair[1]


def _examples() -> Iterator[Example]:
    """The layer with groups, strides and masks, and every variant of the block; offsets reach beyond the image."""
    yield Example(DeformConv2d(4, 6, (3, 3), padding=1), {"x": (4, 7, 9), "offset": (18, 7, 9)})
    layer = DeformConv2d(4, 6, (2, 3), stride=(2, 1), padding=1, groups=2)
    yield Example(layer, {"x": (4, 8, 9), "offset": (24, 5, 9), "mask": (12, 5, 9)})
    spread = {"kernel_size": (5, 3), "stride": 2, "dilation": (1, 2), "groups": 2, "deform_groups": 2}
    for options in ({}, {"bound": 2.0}, {"bound": 3.0, "square": True}, {"rounded": True}, {"modulated": True},
                    {"bound": 3.0, "square": True, "rounded": True, "depthwise": True},
                    {"modulated": True, **spread}):  # fmt: skip
        block = DeformBlock(4, 6, **options)
        nn.init.normal_(block.offset.weight, std=0.5)
        yield Example(block, {"x": (4, 7, 10)})


_PLACES = "an offset is a place: a step of eight bits is more than a pixel"
PART = Conv(
    paper="Deformable Convolutional Networks (ICCV 2017) and CoDeNet (FPGA 2021)",
    tier="T1",
    layers=(DeformConv2d, DeformBlock),
    examples=_examples,
    usual=lambda: Example(DeformBlock(32, 32, bound=8.0), {"x": (32, 32, 32)}),
    kept={"GridSample": _PLACES, "offset": _PLACES},
)
