"""Deformable convolution, its weight in 8 bits or in float: what offsets point to is multiplied as it is read.

Each program makes a tile of output channels and places of one sample. Taps are read between pixels, in float, for so
are offsets; a weight may be codes, each output channel with a scale, which the products are multiplied with at the end.

Floor: x, offsets, weights and y once. Engines that read taps first, and multiply behind, write and read K times x.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from convkit.export.kernel import OUTPUT, Call, Case, Kernel, Launch, Size, Stage

_MADE, _READ, _PLACES = 64, 32, 32


@triton.jit
def corner(source, weight, row, column, rows, columns, inside):
    held = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    value = tl.load(source + (row * columns + column)[None, :], inside & held[None, :], 0.0)
    return value.to(tl.float32) * weight[None, :]


@triton.jit
def deform_conv(x, offset, mask, weight, scale, bias, y, rows, columns, out_rows, out_columns,
                CHANNELS: tl.constexpr, OUT: tl.constexpr, PARTS: tl.constexpr, DOWN: tl.constexpr, OVER: tl.constexpr,
                STRIDE: tl.constexpr, PAD: tl.constexpr, DILATION: tl.constexpr, MASKED: tl.constexpr,
                MADE: tl.constexpr, READ: tl.constexpr, PLACES: tl.constexpr):  # fmt: skip
    sample = tl.program_id(2).to(tl.int64)
    area, taps = out_rows * out_columns, DOWN * OVER
    place = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    known = place < area
    out = tl.program_id(1) * MADE + tl.arange(0, MADE)
    made = tl.zeros((MADE, PLACES), tl.float32)
    for part in range(PARTS):
        for tap in range(taps):
            at = (sample * PARTS + part) * taps + tap
            row = place // out_columns * STRIDE - PAD + tap // OVER * DILATION
            column = place % out_columns * STRIDE - PAD + tap % OVER * DILATION
            high = row + tl.load(offset + 2 * at * area + place, known, 0.0).to(tl.float32)
            wide = column + tl.load(offset + (2 * at + 1) * area + place, known, 0.0).to(tl.float32)
            if MASKED:
                share = tl.load(mask + at * area + place, known, 0.0).to(tl.float32)
            else:
                share = tl.zeros((PLACES,), tl.float32) + 1.0
            top, left = tl.floor(high), tl.floor(wide)
            below, beside = high - top, wide - left
            t, l = top.to(tl.int32), left.to(tl.int32)  # noqa: E741 - the corner's two numbers
            for first in range(0, CHANNELS // PARTS, READ):
                within = first + tl.arange(0, READ)
                channel = part * (CHANNELS // PARTS) + within
                source = x + (sample * CHANNELS + channel)[:, None] * rows * columns
                inside = (within < CHANNELS // PARTS)[:, None] & known[None, :]
                read = corner(source, share * (1 - below) * (1 - beside), t, l, rows, columns, inside)
                read += corner(source, share * (1 - below) * beside, t, l + 1, rows, columns, inside)
                read += corner(source, share * below * (1 - beside), t + 1, l, rows, columns, inside)
                read += corner(source, share * below * beside, t + 1, l + 1, rows, columns, inside)
                held = (out < OUT)[:, None] & (within < CHANNELS // PARTS)[None, :]
                codes = tl.load(weight + (out[:, None] * CHANNELS + channel[None, :]) * taps + tap, held, 0)
                kind = y.dtype.element_ty
                made = tl.dot(codes.to(kind), read.to(kind), made, input_precision="ieee")
    scaled = made * tl.load(scale + out, out < OUT, 0.0).to(tl.float32)[:, None]
    scaled += tl.load(bias + out, out < OUT, 0.0).to(tl.float32)[:, None]
    target = y + (sample * OUT + out)[:, None] * area + place[None, :]
    tl.store(target, scaled.to(y.dtype.element_ty), (out < OUT)[:, None] & known[None, :])


def _shape(shapes: Mapping[str, Sequence[Size]], _: Mapping[str, Any]) -> Sequence[Size]:
    return [shapes["x"][0], shapes["weight"][0], *shapes["offset"][2:]]


def _constants(call: Call) -> dict[str, Any]:
    out, channels, down, over = call.shapes["weight"]
    attributes = call.attributes
    return {
        "CHANNELS": channels, "OUT": out, "PARTS": attributes["parts"], "DOWN": down, "OVER": over,
        "STRIDE": attributes["stride"], "PAD": attributes["pad"], "DILATION": attributes["dilation"],
        "MASKED": bool(attributes["masked"]), "MADE": _MADE, "READ": _READ, "PLACES": _PLACES,
    }  # fmt: skip


def _launch(call: Call) -> Launch:
    batch, _, rows, columns = call.shapes["x"]
    out, *sizes = call.shapes[OUTPUT][1:]
    places = triton.cdiv(sizes[0] * sizes[1], _PLACES)
    return Launch((places, triton.cdiv(out, _MADE), batch), (rows, columns, *sizes))


def _reference(tensors: Mapping[str, Tensor], attributes: Mapping[str, Any]) -> Tensor:
    """Codes `weight` [Cout, C, kh, kw], `scale` and `bias` [Cout], `offset` [N, 2 parts K, Ho, Wo] and, where it is
    `masked`, `mask` [N, parts K, Ho, Wo]: each tap is read by its four neighbours' shares, outside the image nothing.
    """
    x, offset, codes = (tensors[name] for name in ("x", "offset", "weight"))
    mask = tensors["mask"] if attributes["masked"] else torch.ones_like(offset[:, ::2])
    batch, channels, rows, columns = x.shape
    parts, (down, over), sizes = attributes["parts"], codes.shape[2:], offset.shape[2:]
    stride, pad, dilation = attributes["stride"], attributes["pad"], attributes["dilation"]
    moved = offset.reshape(batch, parts, down * over, 2, *sizes)
    shares = mask.reshape(batch, parts, down * over, *sizes)
    own = x.reshape(batch, parts, channels // parts, rows * columns)
    start_row = torch.arange(sizes[0], device=x.device).reshape(-1, 1) * stride - pad
    start_column = torch.arange(sizes[1], device=x.device) * stride - pad
    made = torch.zeros(batch, codes.shape[0], *sizes, dtype=x.dtype, device=x.device)
    for tap in range(down * over):
        high = moved[:, :, tap, 0] + start_row + tap // over * dilation
        wide = moved[:, :, tap, 1] + start_column + tap % over * dilation
        read = torch.zeros(batch, parts, channels // parts, sizes[0] * sizes[1], dtype=x.dtype, device=x.device)
        for row, near_row in ((high.floor(), 1 - (high - high.floor())), (high.floor() + 1, high - high.floor())):
            for column, near in ((wide.floor(), 1 - (wide - wide.floor())), (wide.floor() + 1, wide - wide.floor())):
                held = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
                index = (row.clamp(0, rows - 1) * columns + column.clamp(0, columns - 1)).long()
                value = own.gather(3, index.flatten(2).unsqueeze(2).expand_as(read))
                read += value * (near_row * near * held * shares[:, :, tap]).flatten(2).unsqueeze(2)
        kernel = codes[:, :, tap // over, tap % over].to(x.dtype)
        made += torch.einsum("oc,ncp->nop", kernel, read.flatten(1, 2)).reshape(made.shape)
    return made * tensors["scale"].reshape(-1, 1, 1) + tensors["bias"].reshape(-1, 1, 1)


def _case(
    batch: int, channels: int, out: int, size: tuple[int, int], kernel: tuple[int, int], **attributes: int
) -> Case:
    attributes = {"parts": 1, "stride": 1, "pad": 1, "dilation": 1, "masked": 1, **attributes}
    taps = kernel[0] * kernel[1]
    made = [(edge + 2 * attributes["pad"] - attributes["dilation"] * (k - 1) - 1) // attributes["stride"] + 1
            for edge, k in zip(size, kernel, strict=True)]  # fmt: skip
    tensors = {
        "x": torch.randn(batch, channels, *size),
        "offset": torch.randn(batch, 2 * attributes["parts"] * taps, *made) * 3,
        "mask": torch.rand(batch, attributes["parts"] * taps, *made),
        "weight": torch.randint(-127, 128, (out, channels, *kernel), dtype=torch.int8),
        "scale": torch.rand(out) / 100,
        "bias": torch.randn(out),
    }
    return Case(tensors, attributes)


def _cases() -> Iterator[Case]:
    """Offsets beyond the image, parts of the channels, strides, dilations, more channels than a tile."""
    torch.manual_seed(0)
    yield _case(2, 5, 6, (7, 9), (3, 3))
    yield _case(1, 8, 70, (6, 5), (2, 3), parts=2, stride=2)
    yield _case(1, 40, 3, (9, 8), (3, 3), pad=2, dilation=2, masked=0)


def _macs(call: Call) -> int:
    batch, out, rows, columns = call.shapes[OUTPUT]
    channels, down, over = call.shapes["weight"][1:]
    return int(batch * rows * columns * down * over * channels * (out + 4))


_TENSORS = ("x", "offset", "mask", "weight", "scale", "bias")
PART = Kernel(
    tensors=_TENSORS,
    mixed={"weight": ("int8", "float32", "float16", "bfloat16")},
    shape=_shape,
    stages=(Stage(deform_conv, (*_TENSORS, OUTPUT), _constants, _launch),),
    reference=_reference,
    macs=_macs,
    multiplies=True,
    cases=_cases,
    usual=lambda: _case(4, 128, 128, (64, 64), (3, 3)),
)
