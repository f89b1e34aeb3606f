"""QuantizeLinear and DequantizeLinear: the only truth about precision in a graph."""
# ruff: noqa: N802, ARG001 - functions are named after their ONNX operators and take all their attributes

import torch
from torch import Tensor

from convkit.compress.ops.cast import DTYPES

_RANGE = {
    torch.uint8: (0, 255),
    torch.int8: (-128, 127),
    torch.uint16: (0, 65535),
    torch.int16: (-32768, 32767),
    torch.int32: (-(2**31), 2**31 - 1),
    **{dtype: (torch.finfo(dtype).min, torch.finfo(dtype).max) for dtype in (torch.float8_e4m3fn, torch.float8_e5m2)},
}


def _along(axis: int, parameter: Tensor, x: Tensor, block_size: int) -> Tensor:
    """`parameter` shaped so that it broadcasts along `axis` of `x` (scalars pass), each block's value repeated."""
    if block_size:
        return parameter.repeat_interleave(block_size, axis).narrow(axis, 0, x.shape[axis])
    if parameter.ndim == 0 or parameter.numel() == 1:
        return parameter.reshape(())
    shape = [1] * x.ndim
    shape[axis] = -1
    return parameter.reshape(shape)


def QuantizeLinear(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Tensor:
    """clamp(round_half_even(x / scale) + zero_point); a float8 result is rounded by its own type.

    The type is the zero point's, else `output_dtype` (a TensorProto.DataType), else uint8.
    """
    dtype = zero_point.dtype if zero_point is not None else DTYPES[output_dtype or 2]
    low, high = _RANGE[dtype]
    codes = x / _along(axis, scale, x, block_size)
    if not dtype.is_floating_point:
        codes = torch.round(codes)
    if zero_point is not None and not dtype.is_floating_point:  # -0 + 0 would lose its sign
        codes = codes + _along(axis, zero_point.to(codes.dtype), x, block_size)
    return codes.clamp(low, high).to(dtype)


def DequantizeLinear(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Tensor:
    """(x - zero_point) * scale, in the scale's type or `output_dtype`."""
    codes = x.to(scale.dtype) if x.is_floating_point() else x.to(torch.int32)
    if zero_point is not None:
        codes = codes - _along(axis, zero_point.to(codes.dtype), x, block_size)
    y = codes.to(scale.dtype) * _along(axis, scale, x, block_size)
    return y.to(DTYPES[output_dtype]) if output_dtype else y
