"""The MBConv block as one kernel: 1x1 to more channels, SiLU, grouped convolution, SiLU, 1x1 back, and x added.

Lavin, On the Efficiency of Convolutional Neural Networks, 2024: group width 8, stride 1, fp16 with sums in fp32; x and
y may be in fp32, where a plan adds in it. Each program makes all channels of a square of places, some of the wide ones
at a time: it makes these for the square and the places around it, lays them into a few kilobytes of its own, which stay
in the cache, and reads them from there once for each tap.

Floor: x and y once, 4 C bytes a place in fp16, where the layers one by one move (6 + 8 r) C, 38 C at an expansion r of
4; products r C (2 C + 8 k²). Above it: what surrounds a square is made again for its neighbours, at k = 3 the first
layer for 128 places in place of 64; two groups share one product of 16 by 16, half of which is nothing; and the wide
channels go to the cache and back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from convkit.export.kernel import OUTPUT, WORK, Call, Case, Kernel, Launch, Size, Stage
from convkit.export.paired import GROUP, PAIR, pairs, single, whole

_EDGE, _PART = 8, 32
"""Places along a square's edge, and wide channels at a time."""


@triton.jit
def mbconv(x, wide, wide_bias, grouped, grouped_bias, narrow, bias, work, y, rows, columns,
           CHANNELS: tl.constexpr, WIDE: tl.constexpr, SIDE: tl.constexpr, KNOWN: tl.constexpr,
           EDGE: tl.constexpr, PART: tl.constexpr, AROUND: tl.constexpr):  # fmt: skip
    """`grouped` [k², WIDE / 16, 16, 16]: of each tap, the products of pairs of groups. AROUND: a power of two that
    holds the square and its surroundings. Products are in the weights' type, whatever that of x and y is.
    """
    kind = grouped.dtype.element_ty
    half: tl.constexpr = SIDE // 2
    broad: tl.constexpr = EDGE + SIDE - 1
    sample = tl.program_id(1).to(tl.int64)
    across = (columns + EDGE - 1) // EDGE
    top, left = tl.program_id(0) // across * EDGE, tl.program_id(0) % across * EDGE
    area = rows * columns
    own = sample * tl.num_programs(0) + tl.program_id(0)
    scratch = work.to(tl.pointer_type(kind)) + own * (PART * AROUND)
    channel = tl.arange(0, CHANNELS)
    near = tl.arange(0, AROUND)
    down, over = top + near // broad - half, left + near % broad - half
    there = (near < broad * broad) & (down >= 0) & (down < rows) & (over >= 0) & (over < columns)
    at = sample * KNOWN * area + channel[:, None] * area + (down * columns + over)[None, :]
    seen = tl.load(x + at, (channel < KNOWN)[:, None] & there[None, :], 0.0).to(kind)
    some = tl.arange(0, PART)
    pair, within, place = tl.arange(0, PART // 16), tl.arange(0, 16), tl.arange(0, EDGE * EDGE)
    total = tl.zeros((CHANNELS, EDGE * EDGE), tl.float32)
    for part in range(WIDE // PART):
        these = part * PART + some
        up = tl.load(wide + these[:, None] * CHANNELS + channel[None, :])
        hidden = tl.dot(up, seen, input_precision="ieee") + tl.load(wide_bias + these).to(tl.float32)[:, None]
        hidden = tl.where(there[None, :], hidden * tl.sigmoid(hidden), 0.0).to(kind)
        tl.store(scratch + some[:, None] * AROUND + near[None, :], hidden)
        tl.debug_barrier()  # other threads of the program read what these wrote
        made = tl.zeros((PART // 16, 16, EDGE * EDGE), tl.float32)
        for tap in tl.range(SIDE * SIDE, num_stages=1):  # nothing is read ahead of the barrier
            from_ = (place // EDGE + tap // SIDE) * broad + place % EDGE + tap % SIDE
            read = tl.load(scratch + (pair[:, None] * 16 + within[None, :])[:, :, None] * AROUND + from_[None, None, :])
            paired = (tap * (WIDE // 16) + part * (PART // 16) + pair[:, None, None]) * 256
            taps = tl.load(grouped + paired + within[None, :, None] * 16 + within[None, None, :])
            made = tl.dot(taps, read, made, input_precision="ieee")
        tl.debug_barrier()  # the next part is laid where this one lies
        mixed = tl.reshape(made, (PART, EDGE * EDGE)) + tl.load(grouped_bias + these).to(tl.float32)[:, None]
        mixed = (mixed * tl.sigmoid(mixed)).to(kind)
        back = tl.load(narrow + channel[:, None] * WIDE + these[None, :])
        total = tl.dot(back, mixed, total, input_precision="ieee")
    row, column = top + place // EDGE, left + place % EDGE
    inside = (channel < KNOWN)[:, None] & ((row < rows) & (column < columns))[None, :]
    at = sample * KNOWN * area + channel[:, None] * area + (row * columns + column)[None, :]
    total += tl.load(bias + channel, channel < KNOWN, 0.0).to(tl.float32)[:, None]
    total += tl.load(x + at, inside, 0.0).to(tl.float32)
    tl.store(y + at, total.to(y.dtype.element_ty), inside)


def packed(wide: Tensor, grouped: Tensor, narrow: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights [r C, C], [r C, 8, k, k] and [C, r C] as the kernel reads them: [W, P], [k², W / 16, 16, 16], [P, W],
    where P is C raised to a power of two, and W the r C raised to a multiple of what is made at a time. What is added
    is nothing.
    """
    channels, many = wide.shape[1], wide.shape[0]
    raised, most = max(PAIR, triton.next_power_of_2(channels)), triton.cdiv(many, _PART) * _PART
    up, back = wide.new_zeros(most, raised), narrow.new_zeros(raised, most)
    up[:many, :channels] = wide
    back[:channels, :many] = narrow
    return up, pairs(grouped, most), back


def _shape(shapes: Mapping[str, Sequence[Size]], _: Mapping[str, Any]) -> Sequence[Size]:
    return list(shapes["x"])


def _side(call: Call) -> int:
    return math.isqrt(call.shapes["grouped"][0])


def _around(call: Call) -> int:
    return int(triton.next_power_of_2((_EDGE + _side(call) - 1) ** 2))


def _constants(call: Call) -> dict[str, Any]:
    many, raised = call.shapes["wide"]
    return {"CHANNELS": raised, "WIDE": many, "SIDE": _side(call), "KNOWN": call.shapes["bias"][0], "EDGE": _EDGE,
            "PART": _PART, "AROUND": _around(call)}  # fmt: skip


def _launch(call: Call) -> Launch:
    batch, _, rows, columns = call.shapes["x"]
    return Launch((triton.cdiv(rows, _EDGE) * triton.cdiv(columns, _EDGE), batch), (rows, columns))


def _work(call: Call) -> int:
    """Of every program its own."""
    return math.prod(_launch(call).grid) * _PART * _around(call)


def _reference(tensors: Mapping[str, Tensor], _: Mapping[str, Any]) -> Tensor:
    """Of packed weights: x + narrow(SiLU(grouped(SiLU(wide(x)))))."""
    tensors = {name: tensor.to(tensors["x"].dtype) for name, tensor in tensors.items()}
    x, up, back, weight = tensors["x"], tensors["wide"], tensors["narrow"], whole(tensors["grouped"])
    channels, side, conv2d, silu = x.shape[1], weight.shape[2], torch.nn.functional.conv2d, torch.nn.functional.silu
    hidden = silu(conv2d(x, up[:, :channels, None, None], tensors["wide_bias"]))
    mixed = conv2d(hidden, weight, tensors["grouped_bias"], padding=side // 2, groups=len(up) // PAIR)
    return x + conv2d(silu(mixed), back[:channels, :, None, None], tensors["bias"])


def _eager(tensors: Mapping[str, Tensor], _: Mapping[str, Any]) -> Callable[[], Tensor]:
    """The block's layers one by one, with weights as they were before they were packed."""
    tensors = {name: tensor.to(tensors["x"].dtype) for name, tensor in tensors.items()}
    x, channels, many = tensors["x"], tensors["x"].shape[1], len(tensors["wide"])
    grouped = single(tensors["grouped"], many)
    wide, narrow = (tensors[name] for name in ("wide", "narrow"))
    wide, narrow = wide[:, :channels, None, None].contiguous(), narrow[:channels, :, None, None].contiguous()
    first, middle, last = (tensors[name] for name in ("wide_bias", "grouped_bias", "bias"))
    conv2d, silu = torch.nn.functional.conv2d, torch.nn.functional.silu

    def call() -> Tensor:
        mixed = conv2d(
            silu(conv2d(x, wide, first)), grouped, middle, padding=grouped.shape[2] // 2, groups=many // GROUP
        )
        return x + conv2d(silu(mixed), narrow, last)

    return call


def _case(batch: int, channels: int, size: tuple[int, int], ratio: int = 4, side: int = 3) -> Case:
    many = ratio * channels
    wide = torch.randn(many, channels) / channels**0.5
    grouped = torch.randn(many, GROUP, side, side) / (GROUP * side * side) ** 0.5
    narrow = torch.randn(channels, many) / many**0.5
    up, paired, back = packed(wide, grouped, narrow)
    biases = {name: torch.zeros(len(up)) for name in ("wide_bias", "grouped_bias")}
    for bias in biases.values():
        bias[:many] = torch.randn(many)
    weights = {"wide": up, "wide_bias": biases["wide_bias"], "grouped": paired, "grouped_bias": biases["grouped_bias"],
               "narrow": back, "bias": torch.randn(channels)}  # fmt: skip
    half = {name: tensor.to(torch.float16) for name, tensor in weights.items()}
    return Case({"x": torch.randn(batch, channels, *size), **half})


def _cases() -> Iterator[Case]:
    """Channels that are no power of two, both sizes of kernels, images that are no multiple of a square."""
    torch.manual_seed(0)
    yield _case(2, 16, (7, 9))
    yield _case(1, 24, (5, 17), ratio=2)
    yield _case(1, 64, (9, 8), side=5)


def _macs(call: Call) -> int:
    """Of the block itself: what packing adds, and what is made twice, is no product of it."""
    batch, channels, rows, columns = call.shapes["x"]
    return int(batch * rows * columns * call.shapes["wide"][0] * (2 * channels + GROUP * call.shapes["grouped"][0]))


_TENSORS = ("x", "wide", "wide_bias", "grouped", "grouped_bias", "narrow", "bias")
PART = Kernel(
    tensors=_TENSORS,
    shape=_shape,
    stages=(Stage(mbconv, (*_TENSORS, WORK, OUTPUT), _constants, _launch, warps=8),),
    reference=_reference,
    eager=_eager,
    macs=_macs,
    multiplies=True,
    mixed=dict.fromkeys(_TENSORS[1:], ("float16", "bfloat16")),
    cases=_cases,
    usual=lambda: _case(16, 64, (56, 56)),
    work=_work,
)
