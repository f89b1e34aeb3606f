"""EvoNorm B0 and S0, normalization and activation in one: each program makes one group of one sample.

Floor: x and y once. A group is read three times, from memory the first time, from the cache again as long as it holds
the groups at work: engines that run the sums, products and roots one by one read and write it some six times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from convkit.export.kernel import OUTPUT, Call, Case, Kernel, Launch, Size, Stage

_BLOCK = 1024


@triton.jit
def evonorm(x, weight, bias, v, variance, y, groups, area, size,
            EPS: tl.constexpr, LESS: tl.constexpr, GATED: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    program = tl.program_id(0)
    begin = program.to(tl.int64) * size
    first = program % groups * (size // area)
    lane = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, size, BLOCK):
        total += tl.load(x + begin + start + lane, start + lane < size, 0.0).to(tl.float32)
    mean = tl.sum(total) / size
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, size, BLOCK):
        off = tl.load(x + begin + start + lane, start + lane < size, 0.0).to(tl.float32) - mean
        total += tl.where(start + lane < size, off * off, 0.0)
    spread = tl.sqrt(tl.sum(total) / (size - LESS) + EPS)
    for start in range(0, size, BLOCK):
        place = start + lane
        inside = place < size
        channel = first + place // area
        value = tl.load(x + begin + place, inside, 0.0).to(tl.float32)
        scaled = value * tl.load(v + channel, inside, 0.0).to(tl.float32)
        if GATED:
            made = value * tl.sigmoid(scaled) / spread
        else:
            known = tl.sqrt(tl.load(variance + channel, inside, 1.0).to(tl.float32) + EPS)
            made = value / tl.maximum(known, scaled + spread)
        made = made * tl.load(weight + channel, inside, 0.0).to(tl.float32)
        made += tl.load(bias + channel, inside, 0.0).to(tl.float32)
        tl.store(y + begin + place, made.to(y.dtype.element_ty), inside)


def _shape(shapes: Mapping[str, Sequence[Size]], _: Mapping[str, Any]) -> Sequence[Size]:
    return list(shapes["x"])


def _constants(call: Call) -> dict[str, Any]:
    attributes = call.attributes
    return {"EPS": attributes["eps"], "LESS": attributes["less"], "GATED": bool(attributes["gated"]), "BLOCK": _BLOCK}


def _launch(call: Call) -> Launch:
    batch, channels, rows, columns = call.shapes["x"]
    groups, area = call.attributes["groups"], rows * columns
    return Launch((batch * groups,), (groups, area, channels // groups * area))


def _reference(tensors: Mapping[str, Tensor], attributes: Mapping[str, Any]) -> Tensor:
    """`gated`: x sigmoid(v x) over the root of its group's variance (S0), a mean over `less` numbers fewer; else x over
    the larger of the root of `variance` and v x + that root (B0).
    """
    x, (weight, bias, v, variance) = tensors["x"], (
        tensors[name].reshape(-1, 1, 1) for name in ("weight", "bias", "v", "variance")
    )  # fmt: skip
    eps = attributes["eps"]
    grouped = x.reshape(x.shape[0], attributes["groups"], -1)
    off = grouped - grouped.mean(2, keepdim=True)
    spread = (off.square().sum(2, keepdim=True) / (grouped.shape[2] - attributes["less"]) + eps).sqrt()
    spread = spread.expand_as(grouped).reshape(x.shape)
    made = (
        x * torch.sigmoid(v * x) / spread
        if attributes["gated"]
        else x / torch.maximum((variance + eps).sqrt(), v * x + spread)
    )
    return made * weight + bias


def _case(batch: int, channels: int, size: tuple[int, int], **attributes: float) -> Case:
    tensors = {"x": torch.randn(batch, channels, *size) + 0.5}
    for name in ("weight", "bias", "v"):
        tensors[name] = torch.randn(channels)
    tensors["variance"] = torch.rand(channels) + 0.3
    return Case(tensors, {"eps": 1e-5, "less": 0, **attributes})


def _cases() -> Iterator[Case]:
    """Both, groups that are longer than a block and far from zero, both variances."""
    torch.manual_seed(0)
    yield _case(2, 6, (7, 10), groups=6, gated=0, eps=1e-3)
    yield _case(3, 8, (5, 9), groups=4, gated=1)
    yield _case(1, 4, (29, 31), groups=2, gated=1, less=1)


def _usual() -> Case:
    return _case(16, 256, (56, 56), groups=32, gated=1)


PART = Kernel(
    tensors=("x", "weight", "bias", "v", "variance"),
    shape=_shape,
    stages=(Stage(evonorm, ("x", "weight", "bias", "v", "variance", OUTPUT), _constants, _launch),),
    reference=_reference,
    macs=lambda _: 0,
    cases=_cases,
    usual=_usual,
)
