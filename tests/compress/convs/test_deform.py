"""Deformable convolution beside its definition: each tap read between four pixels, in Python's own floats."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from convkit.compress.convs.deform import DeformBlock, DeformConv2d


def pixel(image: np.ndarray, y: float, x: float) -> float:
    """Bilinear between pixels; those outside are nothing."""
    found = 0.0
    for row, column in itertools.product((math.floor(y), math.floor(y) + 1), (math.floor(x), math.floor(x) + 1)):
        if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
            found += image[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return found


def directly(layer: DeformConv2d, x: np.ndarray, offset: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Loops over samples, outputs, places and taps."""
    weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    kh, kw = weight.shape[2:]
    parts = offset.shape[1] // (2 * kh * kw)
    per_group, per_part = weight.shape[1], x.shape[1] // parts
    made = np.zeros((len(x), len(weight), *offset.shape[2:]))
    for n, o, i, j in np.ndindex(*made.shape):
        group = o // (len(weight) // layer.groups)
        made[n, o, i, j] = bias[o]
        for c, a, b in np.ndindex(per_group, kh, kw):
            channel = group * per_group + c
            tap = (channel // per_part) * kh * kw + a * kw + b
            y, z = (
                at * layer.stride[axis]
                - layer.padding[axis]
                + step * layer.dilation[axis]
                + offset[n, 2 * tap + axis, i, j]
                for axis, (at, step) in enumerate(((i, a), (j, b)))
            )
            weighed = 1.0 if mask is None else mask[n, tap, i, j]
            made[n, o, i, j] += weight[o, c, a, b] * weighed * pixel(x[n, channel], y, z)
    return made


CASES = [
    ({"padding": 1}, (3, 3), 1, (5, 6)),
    ({"padding": 1, "stride": 2, "groups": 2}, (3, 2), 2, (6, 5)),
    ({"padding": 2, "dilation": 2}, (3, 3), 4, (4, 5)),
    ({}, (1, 1), 1, (1, 3)),
    ({"stride": (1, 2), "padding": (2, 0), "dilation": (2, 1)}, 3, 2, (4, 6)),
]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("options", "kernel", "parts", "size"), CASES)
def test_a_tap_at_a_time(options: dict[str, Any], kernel: Any, parts: int, size: tuple[int, int], masked: bool) -> None:
    torch.manual_seed(0)
    layer = DeformConv2d(4, 4, kernel, **options)
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 4, *size)
    plain = nn.functional.conv2d(x, layer.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    taps = parts * math.prod(layer.weight.shape[2:])
    offset = torch.randn(2, 2 * taps, *plain.shape[2:]) * 2
    mask = torch.rand(2, taps, *plain.shape[2:]) if masked else None
    made = layer(x, offset, mask).detach().double().numpy()
    given = (x.double().numpy(), offset.double().numpy(), None if mask is None else mask.double().numpy())
    wanted = directly(layer, *given)
    assert np.abs(made - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize(("options", "kernel", "parts", "size"), CASES)
def test_without_offsets_it_is_a_convolution(
    options: dict[str, Any], kernel: Any, parts: int, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    layer, x = DeformConv2d(4, 4, kernel, **options), torch.randn(2, 4, *size)
    plain = nn.functional.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    offset = torch.zeros(2, 2 * parts * math.prod(layer.weight.shape[2:]), *plain.shape[2:])
    assert torch.allclose(layer(x, offset), plain, atol=1e-5)


def test_square_offsets_dilate() -> None:
    """Where the same number is found everywhere it is a convolution of that dilation."""
    block, x = DeformBlock(3, 4, bound=8.0, square=True, rounded=True), torch.randn(2, 3, 9, 11)
    for found, dilation in ((-4.0, 1), (1.2, 2), (2.8, 4), (99.0, 9)):
        with torch.no_grad():
            block.offset.weight.zero_()
            block.offset.bias.fill_(found)
        wanted = nn.functional.conv2d(x, block.conv.weight, block.conv.bias, 1, dilation, dilation)
        assert torch.allclose(block(x), wanted, atol=1e-5)


def test_parts_of_the_channels_widen_apart() -> None:
    """From the dilation that a larger kernel has; behind the stride."""
    options = {"bound": 8.0, "square": True, "kernel_size": 5, "stride": 2, "dilation": 2, "deform_groups": 2}
    block, x = DeformBlock(4, 6, groups=2, **options), torch.randn(2, 4, 9, 12)
    with torch.no_grad():
        block.offset.weight.zero_()
        block.offset.bias.copy_(torch.tensor([1.0, 3.0]))
    parts = zip(x.chunk(2, 1), block.conv.weight.chunk(2), block.conv.bias.chunk(2), (3, 5), strict=True)
    wanted = [nn.functional.conv2d(part, *kernel, 2, 2 * wide, wide) for part, *kernel, wide in parts]
    assert torch.allclose(block(x), torch.cat(wanted, 1), atol=1e-5)


def test_depthwise_behind_a_stride() -> None:
    block, x = DeformBlock(3, 4, depthwise=True, stride=2, dilation=2), torch.randn(2, 3, 9, 12)
    with torch.no_grad():
        block.offset.weight.zero_()
        block.offset.bias.zero_()
    wanted = nn.functional.conv2d(block.pointwise(x), block.conv.weight, block.conv.bias, 2, 2, 2, groups=4)
    assert torch.allclose(block(x), wanted, atol=1e-5)


def test_their_names_are_taken_and_its_own_stay() -> None:
    block = DeformBlock(4, 4, depthwise=True, modulated=True)
    saved = block.state_dict()
    assert block.own(saved) == saved
    theirs = {"weight": saved["conv.weight"], "point_wise.weight": saved["pointwise.weight"]}
    theirs |= {f"conv_offset_mask.{name}": saved[f"offset.{name}"] for name in ("weight", "bias")}
    taken = block.own(theirs)
    assert taken.keys() == saved.keys()
    assert not taken["conv.bias"].any()
    assert not taken["pointwise.bias"].any()
    del saved["conv.bias"]
    with pytest.raises(RuntimeError, match="Missing key.*conv.bias"):
        block.load_state_dict(saved)


def test_what_cannot_be_is_one_line() -> None:
    with pytest.raises(ValueError, match="square offsets have a bound"):
        DeformBlock(4, 4, square=True)
    with pytest.raises(ValueError, match="groups of its own, not 2"):
        DeformBlock(4, 4, depthwise=True, groups=2)
    with pytest.raises(ValueError, match=r"odd kernel, not \[3, 2\]"):
        DeformBlock(4, 4, kernel_size=(3, 2))
    with pytest.raises(ValueError, match="4 channels do not part into 3 that move alike"):
        DeformBlock(4, 6, deform_groups=3)
    for name, wrong in (("kernel_size", (3, 3, 3)), ("stride", 1.5), ("padding", "same"), ("dilation", (1, None))):
        with pytest.raises(ValueError, match=f"{name} of a deformable convolution is a whole number or two, not"):
            DeformConv2d(4, 4, **{"kernel_size": 3, name: wrong})
    with pytest.raises(ValueError, match=r"\[N, 18 for each part of 4 channels, 8, 8\], not \[1, 16, 8, 8\]"):
        DeformConv2d(4, 4, (3, 3), padding=1)(torch.zeros(1, 4, 8, 8), torch.zeros(1, 16, 8, 8))
