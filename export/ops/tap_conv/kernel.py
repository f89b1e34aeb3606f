"""Depthwise convolution by a list of taps: large kernels, and those of which most is nothing.

It serves DCLS, UniRepLKNet's merged kernels, Inception depthwise convolution and dispersed kernels (one op where they
are several, for channels have taps of their own). Each program makes one stretch of one plane of the output; taps are
the same for all of its numbers, so that what they read lies side by side.

Floor: x and y once. A tap is one product and one read, which the cache serves: beyond some 30 taps it is this that
takes the time, and not memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from convkit.export.kernel import OUTPUT, Call, Case, Kernel, Launch, Size, Stage

_BLOCK = 512


@triton.jit
def tap_conv(x, taps, weight, bias, y, channels, rows, columns, out_rows, out_columns,
             TAPS: tl.constexpr, STRIDE: tl.constexpr, ACROSS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    plane = tl.program_id(0)
    channel = plane % channels
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < out_rows * out_columns
    row = place // out_columns * STRIDE
    column = place % out_columns * ACROSS
    made = tl.zeros((BLOCK,), tl.float32) + tl.load(bias + channel).to(tl.float32)
    source = x + plane.to(tl.int64) * rows * columns
    for tap in range(TAPS):
        at = channel * TAPS + tap
        down = row + tl.load(taps + 2 * at)
        over = column + tl.load(taps + 2 * at + 1)
        held = inside & (down >= 0) & (down < rows) & (over >= 0) & (over < columns)
        read = tl.load(source + down * columns + over, held, 0.0).to(tl.float32)
        made += tl.load(weight + at).to(tl.float32) * read
    tl.store(y + plane.to(tl.int64) * out_rows * out_columns + place, made.to(y.dtype.element_ty), inside)


def _shape(shapes: Mapping[str, Sequence[Size]], attributes: Mapping[str, Any]) -> Sequence[Size]:
    """`margins`: what padding adds to each axis less what the kernel takes away."""
    batch, channels, *sizes = shapes["x"]
    strides, margins = attributes["strides"], attributes["margins"]
    made = [(size + margin) // stride + 1 for size, stride, margin in zip(sizes, strides, margins, strict=True)]
    return [batch, channels, *made]


def _constants(call: Call) -> dict[str, int]:
    down, across = call.attributes["strides"]
    return {"TAPS": call.shapes["weight"][1], "STRIDE": down, "ACROSS": across, "BLOCK": _BLOCK}


def _launch(call: Call) -> Launch:
    batch, channels, *sizes = call.shapes["x"]
    rows, columns = call.shapes[OUTPUT][2:]
    return Launch((batch * channels, triton.cdiv(rows * columns, _BLOCK)), (channels, *sizes, rows, columns))


def _reference(tensors: Mapping[str, Tensor], attributes: Mapping[str, Any]) -> Tensor:
    """Taps [C, T, 2] say how many rows and columns from the place of the output an element is read, outside nothing."""
    x, taps, weight, bias = (tensors[name] for name in ("x", "taps", "weight", "bias"))
    rows, columns = _shape({"x": x.shape}, attributes)[2:]
    down, across = attributes["strides"]
    reach = int(taps.abs().max()) + down * rows + across * columns
    wide = torch.nn.functional.pad(x, (reach, reach, reach, reach))
    made = torch.zeros(*x.shape[:2], rows, columns, dtype=x.dtype, device=x.device)
    for channel, own in enumerate(taps.tolist()):
        for tap, (row, column) in enumerate(own):
            top, left = reach + row, reach + column
            read = wide[:, channel, top : top + down * rows : down, left : left + across * columns : across]
            made[:, channel] += weight[channel, tap] * read
    return made + bias.reshape(-1, 1, 1)


def _eager(tensors: Mapping[str, Tensor], attributes: Mapping[str, Any]) -> Callable[[], Tensor]:
    """An ordinary depthwise convolution, whose kernel spans all taps."""
    x, taps, weight = (tensors[name] for name in ("x", "taps", "weight"))
    rows, columns = _shape({"x": x.shape}, attributes)[2:]
    low = [int(taps[..., axis].min()) for axis in (0, 1)]
    high = [int(taps[..., axis].max()) for axis in (0, 1)]
    dense = weight.new_zeros(len(weight), high[0] - low[0] + 1, high[1] - low[1] + 1)
    channel = torch.arange(len(weight), device=x.device).unsqueeze(1).expand_as(weight)
    dense.index_put_((channel, taps[..., 0].long() - low[0], taps[..., 1].long() - low[1]), weight, accumulate=True)
    down, across = attributes["strides"]
    ends = [(count - 1) * step + far - (size - 1) for count, step, far, size in
            zip((rows, columns), (down, across), high, x.shape[2:], strict=True)]  # fmt: skip
    kernel, bias, pads = dense.unsqueeze(1), tensors["bias"], (-low[1], ends[1], -low[0], ends[0])

    def call() -> Tensor:
        wide = torch.nn.functional.pad(x, pads)
        return torch.nn.functional.conv2d(wide, kernel, bias, (down, across), groups=len(weight))

    return call


def _cases() -> Iterator[Case]:
    """Odd and even sizes, strides, taps outside of the image, planes of more than one stretch."""
    torch.manual_seed(0)
    for channels, count, size, strides, margins in (
        (3, 26, (13, 18), (1, 1), (-1, -1)),
        (2, 5, (9, 70), (2, 3), (-3, 1)),
        (4, 49, (33, 21), (1, 2), (0, -1)),
    ):
        yield Case(
            {
                "x": torch.randn(2, channels, *size),
                "taps": torch.randint(-8, 9, (channels, count, 2), dtype=torch.int32),
                "weight": torch.randn(channels, count),
                "bias": torch.randn(channels),
            },
            {"strides": strides, "margins": margins},
        )


def _usual() -> Case:
    """A 13x13 kernel of UniRepLKNet's second stage."""
    grid = torch.cartesian_prod(torch.arange(-6, 7), torch.arange(-6, 7)).to(torch.int32)
    tensors = {"x": torch.randn(16, 192, 28, 28), "taps": grid.expand(192, -1, -1).contiguous(),
               "weight": torch.randn(192, 169), "bias": torch.randn(192)}  # fmt: skip
    return Case(tensors, {"strides": (1, 1), "margins": (-1, -1)})


def _macs(call: Call) -> int:
    batch, channels, rows, columns = call.shapes[OUTPUT]
    return int(batch * channels * rows * columns * call.shapes["weight"][1])


PART = Kernel(
    tensors=("x", "taps", "weight", "bias"),
    mixed={"taps": ("int32",)},
    shape=_shape,
    stages=(Stage(tap_conv, ("x", "taps", "weight", "bias", OUTPUT), _constants, _launch),),
    reference=_reference,
    eager=_eager,
    macs=_macs,
    cases=_cases,
    usual=_usual,
)
