"""Pyramid convolution: each level of a pyramid is convolved with its neighbours above and below.

Wang et al., Scale-Equalizing Pyramid Convolution for Object Detection, CVPR 2020, equations 2 and 5. The norm that all
levels share is folded into the three convolutions once it is trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.conv import Conv, Example
from convkit.compress.convs.deform import read_taps, weighed


class PyramidKernel(nn.Module):
    """A 3 x 3 convolution that finds offsets of its own on every level but the finest, where `part_deform`."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, part_deform: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3) / (9 * in_channels) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.stride = stride
        self.conv_offset = nn.Conv2d(in_channels, 18, 3, stride, 1) if part_deform else None

    def forward(self, x: Tensor, level: int, scale: Tensor | None) -> Tensor:
        """Without its bias; each channel times `scale`."""
        weight = self.weight if scale is None else self.weight * scale.reshape(-1, 1, 1, 1)
        if self.conv_offset is None or level == 0:
            return F.conv2d(x, weight, stride=self.stride, padding=1)
        return weighed(read_taps(x, self.conv_offset(x), (3, 3), self.stride, 1, 1), weight, None)


class PyramidConv(nn.Module):
    """Levels [N, C, H, W], the finest first, each next about half as large, to as many. Names are those of the
    reference implementation: Pconv holds the kernels for the coarser level, the level itself, and the finer one.
    """

    def __init__(self, in_channels: int, out_channels: int, *, iBN: bool = False, part_deform: bool = False) -> None:
        super().__init__()
        self.Pconv = nn.ModuleList(
            PyramidKernel(in_channels, out_channels, stride=stride, part_deform=part_deform) for stride in (1, 1, 2)
        )
        self.bn = nn.BatchNorm2d(out_channels) if iBN else None

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        scale, shift = (None, None) if self.training or self.bn is None else _affine(self.bn)
        made = [self._level(levels, level, scale, shift) for level in range(len(levels))]
        if self.training and self.bn is not None:
            made = _normed(self.bn, made)
        return [torch.relu(each) for each in made]

    def _level(self, levels: Sequence[Tensor], level: int, scale: Tensor | None, shift: Tensor | None) -> Tensor:
        coarser, own, finer = (cast("PyramidKernel", kernel) for kernel in self.Pconv)
        made: Tensor = own(levels[level], level, scale)
        bias: Tensor = own.bias
        if level > 0:
            made, bias = made + finer(levels[level - 1], level, scale), bias + finer.bias
        if level < len(levels) - 1:
            above = coarser(levels[level + 1], level, scale)
            made, bias = (
                made + F.interpolate(above, made.shape[2:], mode="bilinear", align_corners=True),
                bias + coarser.bias,
            )
        if scale is not None and shift is not None:
            bias = bias * scale + shift
        return made + bias.reshape(-1, 1, 1)


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a trained norm multiplies each channel by, and adds."""
    assert norm.running_mean is not None  # noqa: S101 - it is built with statistics
    assert norm.running_var is not None  # noqa: S101
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def _normed(norm: nn.BatchNorm2d, levels: Sequence[Tensor]) -> list[Tensor]:
    """All levels by the statistics of all of them together."""
    flat = norm(torch.cat([each.flatten(2) for each in levels], -1).unsqueeze(2)).squeeze(2)
    parts = flat.split([each[0, 0].numel() for each in levels], -1)
    return [part.reshape(each.shape) for part, each in zip(parts, levels, strict=True)]


class _Pyramid(nn.Module):
    """Three levels to the sum of their sizes, one row."""

    def __init__(self, conv: PyramidConv) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> Tensor:
        return torch.cat([level.flatten(1) for level in self.conv([fine, middle, coarse])], 1)


def _examples() -> Iterator[Example]:
    """Plain, with a norm, and with offsets; levels of odd and even sizes."""
    for options in ({}, {"iBN": True}, {"iBN": True, "part_deform": True}):
        conv = PyramidConv(4, 4, **options)
        for name, parameter in conv.named_parameters():
            if "Pconv" not in name or "bias" in name or "offset" in name:
                nn.init.normal_(parameter, 0.5, 0.3)
        if conv.bn is not None and conv.bn.running_mean is not None and conv.bn.running_var is not None:
            nn.init.normal_(conv.bn.running_mean)
            nn.init.uniform_(conv.bn.running_var, 0.3, 2.0)
        yield Example(_Pyramid(conv), {"fine": (4, 9, 12), "middle": (4, 5, 6), "coarse": (4, 3, 3)})


_PLACES = "an offset is a place: a step of eight bits is more than a pixel"
PART = Conv(
    paper="Scale-Equalizing Pyramid Convolution for Object Detection (CVPR 2020)",
    tier="T1",
    layers=(PyramidKernel, PyramidConv),
    examples=_examples,
    usual=lambda: Example(
        _Pyramid(PyramidConv(64, 64, iBN=True)), {"fine": (64, 32, 32), "middle": (64, 16, 16), "coarse": (64, 8, 8)}
    ),
    kept={
        "GridSample": _PLACES,
        "conv_offset": _PLACES,
    },
)
