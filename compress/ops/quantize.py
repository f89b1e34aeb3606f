"""QuantizeLinear and DequantizeLinear: the only truth about precision in a graph."""
# ruff: noqa: N802 - functions are named after their ONNX operators

import torch
from torch import Tensor

_RANGE = {
    torch.uint8: (0, 255),
    torch.int8: (-128, 127),
    torch.int16: (-32768, 32767),
    torch.int32: (-(2**31), 2**31 - 1),
}


def _along(axis: int, parameter: Tensor, x: Tensor) -> Tensor:
    """`parameter` shaped so that it broadcasts along `axis` of `x` (scalars pass)."""
    if parameter.ndim == 0 or parameter.numel() == 1:
        return parameter.reshape(())
    shape = [1] * x.ndim
    shape[axis] = -1
    return parameter.reshape(shape)


def QuantizeLinear(x: Tensor, scale: Tensor, zero_point: Tensor | None = None, *, axis: int = 1) -> Tensor:
    """clamp(round_half_even(x / scale) + zero_point); the type is the zero point's (uint8 without one)."""
    dtype = torch.uint8 if zero_point is None else zero_point.dtype
    low, high = _RANGE[dtype]
    codes = torch.round(x / _along(axis, scale, x))
    if zero_point is not None:
        codes = codes + _along(axis, zero_point, x).to(codes.dtype)
    return codes.clamp(low, high).to(dtype)


def DequantizeLinear(x: Tensor, scale: Tensor, zero_point: Tensor | None = None, *, axis: int = 1) -> Tensor:
    """(x - zero_point) * scale, in the scale's type."""
    codes = x.to(torch.int32)
    if zero_point is not None:
        codes = codes - _along(axis, zero_point, x).to(torch.int32)
    return codes.to(scale.dtype) * _along(axis, scale, x)
