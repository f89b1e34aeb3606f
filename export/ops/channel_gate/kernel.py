"""ECA's gate: a short convolution along the pooled channels, a sigmoid, and the product with the image.

Floor: x twice, for the gate needs the whole image first, and y once; the cache may spare the second time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from convkit.export.kernel import OUTPUT, WORK, Call, Case, Kernel, Launch, Size, Stage

_BLOCK = 1024


@triton.jit
def pooled(x, work, area, BLOCK: tl.constexpr):
    plane = tl.program_id(0)
    lane = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, area, BLOCK):
        total += tl.load(x + plane.to(tl.int64) * area + start + lane, start + lane < area, 0.0).to(tl.float32)
    tl.store(work + plane, tl.sum(total) / area)


@triton.jit
def gated(x, weight, work, y, channels, area, TAPS: tl.constexpr, BLOCK: tl.constexpr):
    plane = tl.program_id(0)
    channel = plane % channels
    total = 0.0
    for tap in tl.static_range(TAPS):
        near = channel + tap - TAPS // 2
        held = (near >= 0) & (near < channels)
        mean = tl.load(work + plane - channel + near, held, 0.0)
        total += tl.load(weight + tap).to(tl.float32) * mean
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at = plane.to(tl.int64) * area + place
    value = tl.load(x + at, place < area, 0.0).to(tl.float32)
    tl.store(y + at, (value * tl.sigmoid(total)).to(y.dtype.element_ty), place < area)


def _shape(shapes: Mapping[str, Sequence[Size]], _: Mapping[str, Any]) -> Sequence[Size]:
    return list(shapes["x"])


def _area(call: Call) -> int:
    area = 1
    for size in call.shapes["x"][2:]:
        area *= size
    return area


def _planes(call: Call) -> Launch:
    batch, channels = call.shapes["x"][:2]
    return Launch((batch * channels,), (_area(call),))


def _launch(call: Call) -> Launch:
    batch, channels = call.shapes["x"][:2]
    area = _area(call)
    return Launch((batch * channels, triton.cdiv(area, _BLOCK)), (channels, area))


def _reference(tensors: Mapping[str, Tensor], _: Mapping[str, Any]) -> Tensor:
    """`weight` [T], T odd."""
    x, weight = tensors["x"], tensors["weight"]
    mean = x.flatten(2).mean(2)
    gate = torch.sigmoid(
        torch.nn.functional.conv1d(mean.unsqueeze(1), weight.reshape(1, 1, -1), padding=len(weight) // 2)
    )
    return x * gate.reshape(*mean.shape, *[1] * (x.ndim - 2))


def _case(taps: int, *shape: int) -> Case:
    return Case({"x": torch.randn(shape) + 0.5, "weight": torch.randn(taps)})


def _cases() -> Iterator[Case]:
    """Images and series, planes of one block and more, a kernel as long as there are channels."""
    torch.manual_seed(0)
    yield from (_case(3, 2, 8, 7, 10), _case(5, 3, 5, 17), _case(3, 1, 4, 41, 53))


PART = Kernel(
    tensors=("x", "weight"),
    shape=_shape,
    stages=(
        Stage(pooled, ("x", WORK), lambda _: {"BLOCK": _BLOCK}, _planes),
        Stage(
            gated,
            ("x", "weight", WORK, OUTPUT),
            lambda call: {"TAPS": call.shapes["weight"][0], "BLOCK": _BLOCK},
            _launch,
        ),
    ),
    reference=_reference,
    macs=lambda _: 0,
    work=lambda call: call.shapes["x"][0] * call.shapes["x"][1],
    cases=_cases,
    usual=lambda: _case(5, 16, 256, 28, 28),
)
