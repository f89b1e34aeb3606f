"""Element types. ONNX numbers them as TensorProto.DataType does."""
# ruff: noqa: N802 - functions are named after their ONNX operators

import torch
from torch import Tensor

DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    4: torch.uint16,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    12: torch.uint32,
    13: torch.uint64,
    16: torch.bfloat16,
    17: torch.float8_e4m3fn,
    18: torch.float8_e4m3fnuz,
    19: torch.float8_e5m2,
    20: torch.float8_e5m2fnuz,
}


def Cast(x: Tensor, *, to: int, saturate: int = 1) -> Tensor:
    """`to` is a TensorProto.DataType; floats are cut towards zero on their way to an integer."""
    return _cast(x, DTYPES[to], bool(saturate))


def _cast(x: Tensor, dtype: torch.dtype, saturate: bool) -> Tensor:
    if dtype.is_floating_point and dtype.itemsize == 1 and saturate:
        largest = torch.finfo(dtype).max
        return x.to(torch.float32).clamp(-largest, largest).to(dtype)
    if x.is_floating_point() and not dtype.is_floating_point and dtype is not torch.bool:
        # Through int64: straight from float to an unsigned type is undefined for negatives in C.
        return x.to(torch.int64).to(dtype)
    return x.to(dtype)


def CastLike(x: Tensor, like: Tensor, *, saturate: int = 1) -> Tensor:
    return _cast(x, like.dtype, bool(saturate))
