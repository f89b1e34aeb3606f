"""The ConvFirst block as one kernel: grouped convolution, 1x1 to more channels, SiLU, 1x1 back, and x added.

Lavin, On the Efficiency of Convolutional Neural Networks, 2024: group width 8, stride 1, fp16 with sums in fp32; x and
y may be in fp32, where a plan adds in it. Each program makes all channels of a stretch of places. What is wide in the
middle never leaves it: a part of the wide channels at a time is made, activated and multiplied back.

Floor: x and y once, 4 C bytes a place in fp16, where the layers one by one move 26 C at an expansion of 4; products C 8
k² + 2 r C². Two groups share one product of 16 by 16, the tensor cores' least, half of which is nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from convkit.export.kernel import OUTPUT, Call, Case, Kernel, Launch, Size, Stage
from convkit.export.paired import GROUP, PAIR, pairs, single, whole

_PLACES = 32


@triton.jit
def conv_first(x, grouped, first_bias, wide, wide_bias, narrow, bias, y, rows, columns,
               CHANNELS: tl.constexpr, WIDER: tl.constexpr, SIDE: tl.constexpr, KNOWN: tl.constexpr,
               PLACES: tl.constexpr):  # fmt: skip
    """`grouped` [k², C / 16, 16, 16]: of each tap, the products of pairs of groups. Products are in the weights' type,
    whatever that of x and y is.
    """
    kind = grouped.dtype.element_ty
    sample = tl.program_id(1).to(tl.int64)
    area = rows * columns
    place = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    row, column = place // columns, place % columns
    pairs: tl.constexpr = CHANNELS // 16
    pair = tl.arange(0, pairs)
    within = tl.arange(0, 16)
    source = x + sample * KNOWN * area
    made = tl.zeros((pairs, 16, PLACES), tl.float32)
    for tap in range(SIDE * SIDE):
        down, over = row + tap // SIDE - SIDE // 2, column + tap % SIDE - SIDE // 2
        held = (place < area) & (down >= 0) & (down < rows) & (over >= 0) & (over < columns)
        channel = (pair[:, None] * 16 + within[None, :])[:, :, None]
        read = tl.load(source + channel * area + (down * columns + over)[None, None, :],
                       held[None, None, :] & (channel < KNOWN), 0.0)  # fmt: skip
        at = ((tap * pairs + pair[:, None, None]) * 16 + within[None, :, None]) * 16 + within[None, None, :]
        made = tl.dot(tl.load(grouped + at), read.to(kind), made, input_precision="ieee")
    channel = tl.arange(0, CHANNELS)
    mixed = tl.reshape(made, (CHANNELS, PLACES))
    mixed = (mixed + tl.load(first_bias + channel, channel < KNOWN, 0.0).to(tl.float32)[:, None]).to(kind)
    total = tl.zeros((CHANNELS, PLACES), tl.float32)
    for part in range(WIDER):
        own = part * CHANNELS + channel
        up = tl.load(wide + own[:, None] * CHANNELS + channel[None, :])
        hidden = tl.dot(up, mixed, input_precision="ieee")
        hidden += tl.load(wide_bias + own).to(tl.float32)[:, None]
        hidden = (hidden * tl.sigmoid(hidden)).to(kind)
        back = tl.load(narrow + channel[:, None] * (WIDER * CHANNELS) + own[None, :])
        total = tl.dot(back, hidden, total, input_precision="ieee")
    inside = (channel < KNOWN)[:, None] & (place < area)[None, :]
    at = sample * KNOWN * area + channel[:, None] * area + place[None, :]
    total += tl.load(bias + channel, channel < KNOWN, 0.0).to(tl.float32)[:, None]
    total += tl.load(x + at, inside, 0.0).to(tl.float32)
    tl.store(y + at, total.to(y.dtype.element_ty), inside)


def packed(grouped: Tensor, wide: Tensor, narrow: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights [C, 8, k, k], [r C, C] and [C, r C] as the kernel reads them: [k², P / 16, 16, 16], [R P, P], [P, R P],
    where P is C raised to a power of two, and R P the r C raised to a multiple of it. What is added is nothing.
    """
    channels = grouped.shape[0]
    raised = max(PAIR, triton.next_power_of_2(channels))
    parts = triton.cdiv(wide.shape[0], raised)
    up, back = wide.new_zeros(parts * raised, raised), narrow.new_zeros(raised, parts * raised)
    up[: wide.shape[0], :channels] = wide
    back[:channels, : wide.shape[0]] = narrow
    return pairs(grouped, raised), up, back


def _shape(shapes: Mapping[str, Sequence[Size]], _: Mapping[str, Any]) -> Sequence[Size]:
    return list(shapes["x"])


def _constants(call: Call) -> dict[str, Any]:
    raised = call.shapes["wide"][1]
    side = round(call.shapes["grouped"][0] ** 0.5)
    return {"CHANNELS": raised, "WIDER": call.shapes["wide"][0] // raised, "SIDE": side,
            "KNOWN": call.shapes["bias"][0], "PLACES": _PLACES}  # fmt: skip


def _launch(call: Call) -> Launch:
    batch, _, rows, columns = call.shapes["x"]
    return Launch((triton.cdiv(rows * columns, _PLACES), batch), (rows, columns))


def _reference(tensors: Mapping[str, Tensor], _: Mapping[str, Any]) -> Tensor:
    """Of packed weights: x + narrow(SiLU(wide(grouped(x))))."""
    tensors = {name: tensor.to(tensors["x"].dtype) for name, tensor in tensors.items()}
    x, weight, up, back = tensors["x"], whole(tensors["grouped"]), tensors["wide"], tensors["narrow"]
    channels, side, raised = x.shape[1], weight.shape[2], up.shape[1]
    full = torch.nn.functional.pad(x, (0, 0, 0, 0, 0, raised - channels))
    first = torch.nn.functional.pad(tensors["first_bias"], (0, raised - channels))
    mixed = torch.nn.functional.conv2d(full, weight, first, padding=side // 2, groups=raised // PAIR)
    hidden = torch.nn.functional.silu(torch.nn.functional.conv2d(mixed, up[:, :, None, None], tensors["wide_bias"]))
    made = torch.nn.functional.conv2d(hidden, back[:, :, None, None])[:, :channels]
    return x + made + tensors["bias"].reshape(-1, 1, 1)


def _eager(tensors: Mapping[str, Tensor], _: Mapping[str, Any]) -> Callable[[], Tensor]:
    """The block's layers one by one, with weights as they were before they were packed."""
    tensors = {name: tensor.to(tensors["x"].dtype) for name, tensor in tensors.items()}
    x, up, back = (tensors[name] for name in ("x", "wide", "narrow"))
    channels, grouped = x.shape[1], single(tensors["grouped"], x.shape[1])
    side = grouped.shape[2]
    wide, narrow = up[:, :channels, None, None].contiguous(), back[:channels, :, None, None].contiguous()
    first, middle, last = (tensors[name] for name in ("first_bias", "wide_bias", "bias"))
    conv2d, silu = torch.nn.functional.conv2d, torch.nn.functional.silu

    def call() -> Tensor:
        mixed = conv2d(x, grouped, first, padding=side // 2, groups=channels // GROUP)
        return x + conv2d(silu(conv2d(mixed, wide, middle)), narrow, last)

    return call


def _case(batch: int, channels: int, size: tuple[int, int], ratio: int = 4, side: int = 3) -> Case:
    grouped = torch.randn(channels, GROUP, side, side) / (GROUP * side * side) ** 0.5
    wide = torch.randn(ratio * channels, channels) / channels**0.5
    narrow = torch.randn(channels, ratio * channels) / (ratio * channels) ** 0.5
    paired, up, back = packed(grouped, wide, narrow)
    wide_bias = torch.zeros(len(up))
    wide_bias[: len(wide)] = torch.randn(len(wide))
    weights = {"grouped": paired, "first_bias": torch.randn(channels), "wide": up, "wide_bias": wide_bias,
               "narrow": back, "bias": torch.randn(channels)}  # fmt: skip
    half = {name: tensor.to(torch.float16) for name, tensor in weights.items()}
    return Case({"x": torch.randn(batch, channels, *size), **half})


def _cases() -> Iterator[Case]:
    """Channels that are no power of two, both sizes of kernels, images that are no multiple of a stretch."""
    torch.manual_seed(0)
    yield _case(2, 16, (7, 9))
    yield _case(1, 24, (5, 6), ratio=2)
    yield _case(1, 64, (9, 8), side=5)


def _macs(call: Call) -> int:
    """Of the block itself: what packing adds is no product of it."""
    batch, channels, rows, columns = call.shapes["x"]
    ratio = call.shapes["wide"][0] // call.shapes["wide"][1]
    return int(batch * rows * columns * (channels * GROUP * call.shapes["grouped"][0] + 2 * ratio * channels**2))


_TENSORS = ("x", "grouped", "first_bias", "wide", "wide_bias", "narrow", "bias")
PART = Kernel(
    tensors=_TENSORS,
    shape=_shape,
    stages=(Stage(conv_first, (*_TENSORS, OUTPUT), _constants, _launch),),
    reference=_reference,
    eager=_eager,
    macs=_macs,
    multiplies=True,
    mixed=dict.fromkeys(_TENSORS[1:], ("float16", "bfloat16")),
    cases=_cases,
    usual=lambda: _case(16, 64, (56, 56)),
)
