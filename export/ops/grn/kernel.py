"""Global response norm: x (gamma share + 1), the share being a channel's root of squares over the channels' mean of it.

Floor: x twice, for what is multiplied needs the whole image first, and y once; the cache may spare the second time.
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
def responses(x, work, area, BLOCK: tl.constexpr):
    plane = tl.program_id(0)
    lane = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, area, BLOCK):
        value = tl.load(x + plane.to(tl.int64) * area + start + lane, start + lane < area, 0.0).to(tl.float32)
        total += value * value
    tl.store(work + plane, tl.sqrt(tl.sum(total)))


@triton.jit
def shared(x, gamma, work, y, area, EPS: tl.constexpr, CHANNELS: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    plane = tl.program_id(0)
    channel = plane % CHANNELS
    every = tl.arange(0, WIDE)
    others = tl.load(work + plane - channel + every, every < CHANNELS, 0.0)
    share = tl.load(work + plane) / (tl.sum(others) / CHANNELS + EPS)
    factor = tl.load(gamma + channel).to(tl.float32) * share + 1.0
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at = plane.to(tl.int64) * area + place
    value = tl.load(x + at, place < area, 0.0).to(tl.float32)
    tl.store(y + at, (value * factor).to(y.dtype.element_ty), place < area)


def _shape(shapes: Mapping[str, Sequence[Size]], _: Mapping[str, Any]) -> Sequence[Size]:
    return list(shapes["x"])


def _constants(call: Call) -> dict[str, Any]:
    (channels,) = call.shapes["gamma"]
    wide = triton.next_power_of_2(channels)
    return {"EPS": call.attributes["eps"], "CHANNELS": channels, "WIDE": wide, "BLOCK": _BLOCK}


def _launch(call: Call) -> Launch:
    batch, channels, rows, columns = call.shapes["x"]
    return Launch((batch * channels, triton.cdiv(rows * columns, _BLOCK)), (rows * columns,))


def _planes(call: Call) -> Launch:
    launch = _launch(call)
    return Launch(launch.grid[:1], launch.scalars)


def _reference(tensors: Mapping[str, Tensor], attributes: Mapping[str, Any]) -> Tensor:
    x = tensors["x"]
    response = x.square().sum((2, 3), keepdim=True).sqrt()
    share = response / (response.mean(1, keepdim=True) + attributes["eps"])
    return x * (tensors["gamma"].reshape(1, -1, 1, 1) * share + 1)


def _case(*shape: int) -> Case:
    return Case({"x": torch.randn(shape), "gamma": torch.randn(shape[1])}, {"eps": 1e-6})


def _cases() -> Iterator[Case]:
    """Planes of one block and more, channels that are no power of two."""
    torch.manual_seed(0)
    yield from (_case(2, 6, 7, 10), _case(3, 33, 1, 1), _case(1, 4, 41, 53))


PART = Kernel(
    tensors=("x", "gamma"),
    shape=_shape,
    stages=(
        Stage(responses, ("x", WORK), lambda _: {"BLOCK": _BLOCK}, _planes),
        Stage(shared, ("x", "gamma", WORK, OUTPUT), _constants, _launch),
    ),
    reference=_reference,
    macs=lambda _: 0,
    work=lambda call: call.shapes["x"][0] * call.shapes["x"][1],
    cases=_cases,
    usual=lambda: _case(16, 768, 28, 28),
)
