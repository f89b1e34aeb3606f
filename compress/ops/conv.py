"""Convolutions over 1 to 3 spatial dimensions: x [N, C, …], w [M, C/group, …], transposed w [C, M/group, …]."""
# ruff: noqa: N802, ARG001, PLR0913 - functions are named after their ONNX operators and take all their attributes

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def same_pads(
    size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], auto_pad: str
) -> list[int]:
    """ONNX's `pads` (all begins, then all ends) that `auto_pad` means for an input of spatial `size`."""
    begins, ends = [], []
    for n, k, s, d in zip(size, kernel, strides, dilations, strict=True):
        total = 0
        if auto_pad in {"SAME_UPPER", "SAME_LOWER"}:
            total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if auto_pad == "SAME_UPPER" else large)
        ends.append(large if auto_pad == "SAME_UPPER" else small)
    return begins + ends


def spatial_pad(x: Tensor, pads: Sequence[int], value: float = 0.0) -> Tensor:
    """x padded by ONNX's `pads` along its spatial dimensions; a negative pad crops."""
    rank = len(pads) // 2
    reverse = [p for i in reversed(range(rank)) for p in (pads[i], pads[rank + i])]
    return F.pad(x, reverse, value=value) if any(reverse) else x


def Conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    rank = w.ndim - 2
    dilation, stride = list(dilations or [1] * rank), list(strides or [1] * rank)
    padding = list(pads or [0] * 2 * rank)
    if auto_pad != "NOTSET":
        padding = same_pads(x.shape[2:], w.shape[2:], stride, dilation, auto_pad)
    if padding[:rank] != padding[rank:] or min(padding) < 0:
        x, padding = spatial_pad(x, padding), [0] * rank
    return _CONV[rank](x, w, b, stride, padding[:rank], dilation, group)


def ConvTranspose(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """`pads` crop the full result, `output_padding` lengthens its end; `output_shape` decides both."""
    rank = w.ndim - 2
    dilation, stride = list(dilations or [1] * rank), list(strides or [1] * rank)
    extra = list(output_padding or [0] * rank)
    crop = list(pads or [0] * 2 * rank)
    if output_shape is None and auto_pad in {"SAME_UPPER", "SAME_LOWER"}:
        output_shape = [n * s for n, s in zip(x.shape[2:], stride, strict=True)]
    full = _TRANSPOSED[rank](x, w, None, stride, 0, 0, group, dilation)
    if output_shape is not None:
        crop = _crop(full.shape[2:], extra, list(output_shape)[-rank:], auto_pad)
    ends = [e - c for c, e in zip(crop[rank:], extra, strict=True)]
    y = spatial_pad(full, [-c for c in crop[:rank]] + ends)
    return y if b is None else y + b.reshape(-1, *[1] * rank)


def _crop(full: Sequence[int], extra: Sequence[int], wanted: Sequence[int], auto_pad: str) -> list[int]:
    begins, ends = [], []
    for n, e, size in zip(full, extra, wanted, strict=True):
        total = max(n + e - size, 0) if auto_pad != "NOTSET" else n + e - size
        small, large = total // 2, total - total // 2
        begins.append(small if auto_pad == "SAME_UPPER" else large)
        ends.append(large if auto_pad == "SAME_UPPER" else small)
    return begins + ends


def ConvInteger(
    x: Tensor,
    w: Tensor,
    x_zero_point: Tensor | None = None,
    w_zero_point: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """The convolution of (x - x_zero_point) with (w - w_zero_point), in int32; padding stands for the zero point."""
    # float64 holds every int32 sum exactly, and torch has no integer convolution.
    left, right = x.double(), w.double()
    if x_zero_point is not None:
        left = left - x_zero_point.double()
    if w_zero_point is not None:
        right = right - w_zero_point.double().reshape(-1, *[1] * (w.ndim - 1))
    y = Conv(left, right, auto_pad=auto_pad, dilations=dilations, group=group, pads=pads, strides=strides)
    return y.to(torch.int32)
