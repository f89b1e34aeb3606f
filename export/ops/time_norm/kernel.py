"""A norm of rows whose weight and bias are each sample's own: DiMR's time-dependent layer norm and others of the kind.

Floor: x and y once. Each program makes one row, which it holds: it is read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from convkit.export.kernel import OUTPUT, Call, Case, Kernel, Launch, Size, Stage


@triton.jit
def time_norm(x, weight, bias, y, rows, EPS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    own = row // rows * SIZE
    lane = tl.arange(0, BLOCK)
    inside = lane < SIZE
    value = tl.load(x + row.to(tl.int64) * SIZE + lane, inside, 0.0).to(tl.float32)
    off = tl.where(inside, value - tl.sum(value) / SIZE, 0.0)
    made = off / tl.sqrt(tl.sum(off * off) / SIZE + EPS)
    made = made * tl.load(weight + own + lane, inside, 0.0).to(tl.float32)
    made += tl.load(bias + own + lane, inside, 0.0).to(tl.float32)
    tl.store(y + row.to(tl.int64) * SIZE + lane, made.to(y.dtype.element_ty), inside)


def _shape(shapes: Mapping[str, Sequence[Size]], _: Mapping[str, Any]) -> Sequence[Size]:
    return list(shapes["x"])


def _constants(call: Call) -> dict[str, Any]:
    size = call.shapes["weight"][-1]
    return {"EPS": call.attributes["eps"], "SIZE": size, "BLOCK": triton.next_power_of_2(size)}


def _launch(call: Call) -> Launch:
    batch, *axes = call.shapes["x"][:-1]
    rows = 1
    for size in axes:
        rows *= size
    return Launch((batch * rows,), (rows,))


def _reference(tensors: Mapping[str, Tensor], attributes: Mapping[str, Any]) -> Tensor:
    """x [N, …, C]; weight and bias [N, C]."""
    x = tensors["x"]
    beside = (x.shape[0], *[1] * (x.ndim - 2), x.shape[-1])
    normed = torch.nn.functional.layer_norm(x, x.shape[-1:], eps=attributes["eps"])
    return normed * tensors["weight"].reshape(beside) + tensors["bias"].reshape(beside)


def _case(*shape: int) -> Case:
    tensors = {"x": torch.randn(shape) * 2 + 1}
    for name in ("weight", "bias"):
        tensors[name] = torch.randn(shape[0], shape[-1])
    return Case(tensors, {"eps": 1e-5})


def _cases() -> Iterator[Case]:
    """Rows, images with channels last, a sample that is one row, channels that are no power of two."""
    torch.manual_seed(0)
    yield from (_case(2, 5, 6), _case(3, 3, 4, 7), _case(2, 33), _case(1, 9, 256))


PART = Kernel(
    tensors=("x", "weight", "bias"),
    shape=_shape,
    stages=(Stage(time_norm, ("x", "weight", "bias", OUTPUT), _constants, _launch),),
    reference=_reference,
    macs=lambda _: 0,
    cases=_cases,
    usual=lambda: _case(16, 1024, 768),
)
