"""Pooling over 1 to 3 spatial dimensions of x [N, C, …]."""
# ruff: noqa: N802, ARG001 - functions are named after their ONNX operators and take all their attributes

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from convkit.compress.ops.conv import same_pads, spatial_pad

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MEAN = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True, slots=True)
class _Window:
    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: list[int]
    """All begins, then all ends."""
    tail: list[int]
    """What `ceil_mode` adds behind the last pad, so that the last window is whole."""


def _window(
    x: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    auto_pad: str,
    ceil_mode: int,
) -> _Window:
    rank = x.ndim - 2
    stride, dilation = list(strides or [1] * rank), list(dilations or [1] * rank)
    padding = list(pads or [0] * 2 * rank)
    if auto_pad != "NOTSET":
        padding = same_pads(x.shape[2:], kernel, stride, dilation, auto_pad)
    tail = [0] * rank
    for i in range(rank) if ceil_mode else ():
        reach = (kernel[i] - 1) * dilation[i] + 1
        tail[i] = _tail(x.shape[2 + i], reach, stride[i], padding[i], padding[rank + i])
    return _Window(list(kernel), stride, dilation, padding, tail)


def _tail(size: int, reach: int, stride: int, begin: int, end: int) -> int:
    """Elements missing to the last window; a window that would start behind the input and its begin is dropped."""
    count = -(-(size + begin + end - reach) // stride) + 1
    if (count - 1) * stride >= size + begin:
        count -= 1
    return max((count - 1) * stride + reach - (size + begin + end), 0)


def _padded(x: Tensor, window: _Window, value: float) -> Tensor:
    rank = len(window.kernel)
    ends = [p + t for p, t in zip(window.pads[rank:], window.tail, strict=True)]
    return spatial_pad(x, window.pads[:rank] + ends, value)


def _plain(window: _Window) -> bool:
    """torch's own pooling pads both sides alike and by half a kernel at most."""
    rank = len(window.kernel)
    begins, ends = window.pads[:rank], window.pads[rank:]
    half = all(0 <= p <= k // 2 for p, k in zip(begins, window.kernel, strict=True))
    return begins == ends and half and not any(window.tail)


def MaxPool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
) -> Tensor:
    window = _window(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    rank = len(window.kernel)
    y = x if x.is_floating_point() else x.double()
    padding = window.pads[:rank]
    if not _plain(window):
        y, padding = _padded(y, window, -torch.inf), [0] * rank
    y = _MAX[rank](y, window.kernel, window.strides, padding, window.dilations)
    return y.to(x.dtype)


def AveragePool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """The mean over each window; the pads count as zeros if `count_include_pad`, and not at all otherwise."""
    window = _window(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    rank = len(window.kernel)
    if _plain(window) and max(window.dilations) == 1:
        return _MEAN[rank](
            x, window.kernel, window.strides, window.pads[:rank], count_include_pad=bool(count_include_pad)
        )
    ones = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    if count_include_pad:
        ones = spatial_pad(ones, window.pads, 1.0)
        counted = _window_sum(spatial_pad(ones, [0] * rank + window.tail), window)
    else:
        counted = _window_sum(_padded(ones, window, 0.0), window)
    return _window_sum(_padded(x, window, 0.0), window) / counted


def _window_sum(padded: Tensor, window: _Window) -> Tensor:
    rank = len(window.kernel)
    ones = torch.ones((1, 1, *window.kernel), dtype=padded.dtype, device=padded.device)
    single = padded.reshape(-1, 1, *padded.shape[2:])
    total = _CONV[rank](single, ones, None, window.strides, 0, window.dilations)
    return total.reshape(*padded.shape[:2], *total.shape[2:])


def LpPool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int],
    p: int = 2,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """(sum of |x|^p)^(1/p) over each window."""
    window = _window(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    return _window_sum(_padded(x.abs() ** p, window, 0.0), window) ** (1.0 / p)


def GlobalAveragePool(x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


def GlobalMaxPool(x: Tensor) -> Tensor:
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)


def GlobalLpPool(x: Tensor, *, p: int = 2) -> Tensor:
    return (x.abs() ** p).sum(tuple(range(2, x.ndim)), keepdim=True) ** (1.0 / p)
