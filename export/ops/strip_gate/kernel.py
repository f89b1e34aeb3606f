"""ELA's gates: means along rows and along columns, a short convolution and a norm of each, and both sigmoids times x.

Floor: x twice, for the gates need the whole image first, and y once; the cache may spare the second time. Planes are
read once more here, for strips along the other axis. Strips are as many numbers as an edge has, so their products count
for nothing; each is made three times, which spares two launches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from convkit.export.kernel import OUTPUT, WORK, Call, Case, Kernel, Launch, Size, Stage

_ROWS, _COLUMNS, _BLOCK = 16, 64, 1024


@triton.jit
def strips(x, work, planes, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Means of rows [planes, rows], and behind them of columns [planes, columns]."""
    plane = tl.program_id(0)
    begin = x + plane.to(tl.int64) * rows * columns
    down, along = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    for top in range(0, rows, ROWS):
        row = top + down
        total = tl.zeros((ROWS,), tl.float32)
        for left in range(0, columns, COLUMNS):
            column = left + along
            held = (row[:, None] < rows) & (column[None, :] < columns)
            tile = tl.load(begin + row[:, None] * columns + column[None, :], held, 0.0).to(tl.float32)
            total += tl.sum(tile, 1)
        tl.store(work + plane * rows + row, total / columns, row < rows)
    for left in range(0, columns, COLUMNS):
        column = left + along
        total = tl.zeros((COLUMNS,), tl.float32)
        for top in range(0, rows, ROWS):
            row = top + down
            held = (row[:, None] < rows) & (column[None, :] < columns)
            tile = tl.load(begin + row[:, None] * columns + column[None, :], held, 0.0).to(tl.float32)
            total += tl.sum(tile, 0)
        tl.store(work + planes * rows + plane * columns + column, total / rows, column < columns)


@triton.jit
def convolved(means, weight, channel, place, length, inside,
              READ: tl.constexpr, TAPS: tl.constexpr):  # fmt: skip
    """What the convolution makes of one sample's `means` [channels, length] at places of channels."""
    total = tl.zeros(channel.shape, tl.float32)
    for turn in range(READ):
        read = means + (channel // READ * READ + turn) * length
        for tap in tl.static_range(TAPS):
            near = place + tap - TAPS // 2
            mean = tl.load(read + near, inside & (near >= 0) & (near < length), 0.0)
            total += mean * tl.load(weight + (channel * READ + turn) * TAPS + tap, inside, 0.0).to(tl.float32)
    return total


@triton.jit
def gates(weight, scale, bias, work, planes, rows, columns, EPS: tl.constexpr, NORMS: tl.constexpr,
          CHANNELS: tl.constexpr, READ: tl.constexpr, TAPS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Gates as the means lie, behind them: a program makes one group of the norm, of one sample's rows or columns."""
    sample, group = tl.program_id(0) // NORMS, tl.program_id(0) % NORMS
    across = tl.program_id(1)
    length = tl.where(across == 0, rows, columns)
    means = work + across * planes * rows + sample * CHANNELS * length
    made = means + planes * (rows + columns)
    first, size = group * (CHANNELS // NORMS), CHANNELS // NORMS * length
    lane = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, size, BLOCK):
        each = start + lane
        channel, inside = first + each // length, each < size
        total += convolved(means, weight, channel, each % length, length, inside, READ, TAPS)
    mean = tl.sum(total) / size
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, size, BLOCK):
        each = start + lane
        channel, inside = first + each // length, each < size
        off = convolved(means, weight, channel, each % length, length, inside, READ, TAPS) - mean
        total += tl.where(inside, off * off, 0.0)
    spread = tl.sqrt(tl.sum(total) / size + EPS)
    for start in range(0, size, BLOCK):
        each = start + lane
        channel, inside = first + each // length, each < size
        off = convolved(means, weight, channel, each % length, length, inside, READ, TAPS) - mean
        normed = off / spread * tl.load(scale + channel, inside, 0.0).to(tl.float32)
        normed += tl.load(bias + channel, inside, 0.0).to(tl.float32)
        tl.store(made + first * length + each, tl.sigmoid(normed), inside)


@triton.jit
def gated(x, work, y, planes, rows, columns, BLOCK: tl.constexpr):
    plane = tl.program_id(0)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < rows * columns
    made = work + planes * (rows + columns)
    gate = tl.load(made + plane * rows + place // columns, inside, 0.0)
    gate *= tl.load(made + planes * rows + plane * columns + place % columns, inside, 0.0)
    at = plane.to(tl.int64) * rows * columns + place
    value = tl.load(x + at, inside, 0.0).to(tl.float32)
    tl.store(y + at, (value * gate).to(y.dtype.element_ty), inside)


def _shape(shapes: Mapping[str, Sequence[Size]], _: Mapping[str, Any]) -> Sequence[Size]:
    return list(shapes["x"])


def _scalars(call: Call) -> tuple[int, int, int]:
    batch, channels, rows, columns = call.shapes["x"]
    return batch * channels, rows, columns


def _planes(call: Call) -> Launch:
    scalars = _scalars(call)
    return Launch(scalars[:1], scalars)


def _groups(call: Call) -> Launch:
    return Launch((call.shapes["x"][0] * call.attributes["norms"], 2), _scalars(call))


def _blocks(call: Call) -> Launch:
    planes, rows, columns = scalars = _scalars(call)
    return Launch((planes, triton.cdiv(rows * columns, _BLOCK)), scalars)


def _constants(call: Call) -> dict[str, Any]:
    channels, read, taps = call.shapes["weight"]
    told = {"EPS": call.attributes["eps"], "NORMS": call.attributes["norms"], "BLOCK": _BLOCK // 4}
    return {**told, "CHANNELS": channels, "READ": read, "TAPS": taps}


def _reference(tensors: Mapping[str, Tensor], attributes: Mapping[str, Any]) -> Tensor:
    """`weight` [C, C / groups, T], T odd; `scale` and `bias` of a norm in groups called `norms`."""
    x, weight = tensors["x"], tensors["weight"]

    def gate(axis: int) -> Tensor:
        groups = len(weight) // weight.shape[1]
        made = F.conv1d(x.mean(axis), weight, padding=weight.shape[2] // 2, groups=groups)
        normed = F.group_norm(made, attributes["norms"], tensors["scale"], tensors["bias"], attributes["eps"])
        return normed.sigmoid().unsqueeze(axis)

    return x * gate(3) * gate(2)


def _case(groups: int, taps: int, norms: int, *shape: int) -> Case:
    channels = shape[1]
    weight = torch.randn(channels, channels // groups, taps)
    tensors = {"x": torch.randn(shape) + 0.5, "weight": weight}
    return Case(
        {**tensors, "scale": torch.randn(channels), "bias": torch.randn(channels)}, {"norms": norms, "eps": 1e-5}
    )


def _cases() -> Iterator[Case]:
    """Depthwise and in groups, norms of one channel and of several, edges of one tile and more."""
    torch.manual_seed(0)
    yield from (_case(4, 5, 4, 2, 4, 7, 10), _case(2, 3, 2, 1, 4, 5, 70), _case(6, 3, 2, 1, 6, 19, 5))


PART = Kernel(
    tensors=("x", "weight", "scale", "bias"),
    shape=_shape,
    stages=(
        Stage(strips, ("x", WORK), lambda _: {"ROWS": _ROWS, "COLUMNS": _COLUMNS}, _planes),
        Stage(gates, ("weight", "scale", "bias", WORK), _constants, _groups),
        Stage(gated, ("x", WORK, OUTPUT), lambda _: {"BLOCK": _BLOCK}, _blocks),
    ),
    reference=_reference,
    macs=lambda _: 0,
    work=lambda call: 2 * call.shapes["x"][0] * call.shapes["x"][1] * sum(call.shapes["x"][2:]),
    cases=_cases,
    usual=lambda: _case(256, 7, 16, 16, 256, 56, 56),
)
