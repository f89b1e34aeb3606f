"""Depthwise convolution of series with a kernel about as long as they are, known beforehand: SGConv, LSSL.

The series is cut into blocks, and the blocks of the output are products of Toeplitz matrices of the kernel and blocks
of the input. All blocks that stand equally far apart have one matrix: each program multiplies it with many at once, on
the tensor cores. No transform is needed, and no numbers beyond those of the series are kept.

Floor: x, y and the kernel once; products as many as outputs times taps, of which the causal half that is nothing is not
skipped within a block only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from convkit.export.kernel import OUTPUT, Call, Case, Kernel, Launch, Size, Stage

_BLOCK, _COLUMNS = 32, 32


@triton.jit
def long_conv(x, weight, bias, y, channels, columns, length, out_length,
              TAPS: tl.constexpr, PAD: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr,
              BLOCK: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    channel = tl.program_id(0)
    blocks = tl.cdiv(out_length, BLOCK)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    sample, block = column // blocks, column % blocks
    within = tl.arange(0, BLOCK)
    known = column < columns
    source = x + (sample.to(tl.int64) * channels + channel) * length
    made = tl.zeros((BLOCK, COLUMNS), tl.float32) + tl.load(bias + channel).to(tl.float32)
    for apart in range(FIRST, LAST):
        tap = apart * BLOCK + within[None, :] - within[:, None] + PAD
        matrix = tl.load(weight + channel * TAPS + tap, (tap >= 0) & (tap < TAPS), 0.0)
        place = (block + apart)[None, :] * BLOCK + within[:, None]
        held = known[None, :] & (place >= 0) & (place < length)
        read = tl.load(source[None, :] + place, held, 0.0)
        made = tl.dot(matrix, read, made, input_precision="ieee")
    place = block[None, :] * BLOCK + within[:, None]
    target = y + (sample.to(tl.int64) * channels + channel)[None, :] * out_length + place
    tl.store(target, made.to(y.dtype.element_ty), known[None, :] & (place < out_length))


def _shape(shapes: Mapping[str, Sequence[Size]], attributes: Mapping[str, Any]) -> Sequence[Size]:
    """`margin`: what padding adds less what the kernel takes away, its length less one."""
    batch, channels, length = shapes["x"]
    return [batch, channels, length + attributes["margin"]]


def _constants(call: Call) -> dict[str, int]:
    taps, pad = call.shapes["weight"][1], call.attributes["pad"]
    first, last = (-pad - _BLOCK + 1) // _BLOCK, (taps - 1 - pad + _BLOCK - 1) // _BLOCK + 1
    return {"TAPS": taps, "PAD": pad, "FIRST": first, "LAST": last, "BLOCK": _BLOCK, "COLUMNS": _COLUMNS}


def _launch(call: Call) -> Launch:
    batch, channels, length = call.shapes["x"]
    made = call.shapes[OUTPUT][2]
    columns = batch * triton.cdiv(made, _BLOCK)
    return Launch((channels, triton.cdiv(columns, _COLUMNS)), (channels, columns, length, made))


def _reference(tensors: Mapping[str, Tensor], attributes: Mapping[str, Any]) -> Tensor:
    x, weight, bias = (tensors[name] for name in ("x", "weight", "bias"))
    pad = attributes["pad"]
    behind = attributes["margin"] - pad + weight.shape[1] - 1
    wide = torch.nn.functional.pad(x, (pad, behind))
    return torch.nn.functional.conv1d(wide, weight.unsqueeze(1), bias, groups=len(weight))


def _cases() -> Iterator[Case]:
    """Causal, in both directions, kernels shorter and longer than the series, more columns than a program takes."""
    torch.manual_seed(0)
    for batch, channels, length, taps, pad, behind in (
        (2, 2, 100, 100, 99, 0), (1, 3, 65, 130, 64, 65), (3, 1, 700, 37, 36, 0), (2, 2, 64, 200, 199, 31),
    ):  # fmt: skip
        tensors = {"x": torch.randn(batch, channels, length), "weight": torch.randn(channels, taps) / taps**0.5,
                   "bias": torch.randn(channels)}  # fmt: skip
        yield Case(tensors, {"pad": pad, "margin": pad + behind - taps + 1})


def _usual() -> Case:
    """A causal kernel as long as its series."""
    tensors = {"x": torch.randn(4, 256, 4096), "weight": torch.randn(256, 4096) / 64, "bias": torch.randn(256)}
    return Case(tensors, {"pad": 4095, "margin": 0})


def _macs(call: Call) -> int:
    """Of the causal half alone where it is causal: a tap that reads nothing is none."""
    batch, channels, made = call.shapes[OUTPUT]
    length, taps, pad = call.shapes["x"][2], call.shapes["weight"][1], call.attributes["pad"]
    read = sum(max(0, min(taps, length + pad - place) - max(0, pad - place)) for place in range(made))
    return int(batch * channels * read)


PART = Kernel(
    tensors=("x", "weight", "bias"),
    shape=_shape,
    stages=(Stage(long_conv, ("x", "weight", "bias", OUTPUT), _constants, _launch),),
    reference=_reference,
    macs=_macs,
    multiplies=True,
    cases=_cases,
    usual=_usual,
)
