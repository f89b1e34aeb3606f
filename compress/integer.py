"""Quantized operators in integers, code for code as ONNX Runtime's QLinear kernels compute them.

A quantized tensor comes as (codes, scale, zero point); `y` is the result's (scale, zero point). Sums are exact, and
every rounding stands where MLAS, ONNX Runtime's kernel library, has it. Sources: onnxruntime/core/mlas/lib/qgemm.h,
requantize.cpp, qladd.cpp, qlmul.cpp, qlgavgpool.cpp and contrib_ops/cpu/quantization/qlinear_pool.cc.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from convkit.compress.ops.conv import Conv
from convkit.compress.ops.pooling import AveragePool

Codes = tuple[Tensor, Tensor, Tensor | None]
"""(codes, scale, zero point); a bias that is stored in float comes without the other two."""
Result = tuple[Tensor, Tensor]
"""Scale and zero point of the result."""
Kernel = Callable[..., Tensor]

_EXACT_IN_FLOAT32 = 2**24
"""Sums of integers below it are exact in float32, in whatever order and however fused."""


def conv(x: Codes, w: Codes, b: Codes | None, y: Result, **attributes: Any) -> Tensor:  # noqa: ANN401 - Conv's own
    """Conv of x [N, C, …] by w [M, C/group, …] with `Conv`'s attributes; w's scale is one number or [M]."""
    shape = [1, -1] + [1] * (x[0].ndim - 2)
    reach = _reach(x, w, list(range(1, w[0].ndim)))
    dtype, bias = _exact_type(reach), None if b is None else _bias(x, w, b)
    fits = bias is not None and _exact_type(reach + float(bias.abs().max())) == dtype
    total = Conv(
        _centred(x, dtype), _centred(w, dtype), bias.to(dtype) if fits and bias is not None else None, **attributes
    )
    if bias is not None and not fits:
        total = total + bias.reshape(shape)
    return _requantized(total, (_scalar(x[1]) * w[1].reshape(-1) / _scalar(y[0])).reshape(shape), y)


def gemm(a: Codes, b: Codes, c: Codes | None, y: Result, **attributes: Any) -> Tensor:  # noqa: ANN401 - Gemm's own
    """Gemm of a [M, K] and b [K, N] (or their transposes) plus c [N]; b's scale is one number or [N]."""
    rows, columns = bool(attributes.get("transA", 0)), bool(attributes.get("transB", 0))
    dtype = _exact_type(_reach(a, b, [1 if columns else 0]))
    left, right = _centred(a, dtype), _centred(b, dtype)
    total = (left.t() if rows else left) @ (right.t() if columns else right)
    if c is not None:
        total = total + _bias(a, b, c)
    alpha = torch.tensor(attributes.get("alpha", 1.0), dtype=torch.float32)
    return _requantized(total, alpha * _scalar(a[1]) * b[1].reshape(-1) / _scalar(y[0]), y)


def matmul(a: Codes, b: Codes, y: Result) -> Tensor:
    """MatMul of a [..., M, K] and b [..., K, N]; b's scale is one number or [N]."""
    dtype = _exact_type(_reach(a, b, [b[0].ndim - 2]))
    total = _centred(a, dtype) @ _centred(b, dtype)
    return _requantized(total, _scalar(a[1]) * b[1].reshape(-1) / _scalar(y[0]), y)


def add(a: Codes, b: Codes, y: Result) -> Tensor:
    """a + b: two fused multiply-adds in float32, from a constant that holds all three zero points."""
    ratio_a, ratio_b = a[1] / y[0], b[1] / y[0]
    zeros = _fused(ratio_a, _zero(a).float(), ratio_b * _zero(b).float())
    partial = _fused(b[0].float(), ratio_b, y[1].float() - zeros)
    return _saturated(torch.round(_fused(a[0].float(), ratio_a, partial)), y)


def mul(a: Codes, b: Codes, y: Result) -> Tensor:
    """a · b; the zero point is added before rounding."""
    product = (a[0].int() - _zero(a)) * (b[0].int() - _zero(b))
    return _saturated(torch.round(product.float() * (a[1] * b[1] / y[0]) + y[1].float()), y)


def global_average_pool(x: Codes, y: Result) -> Tensor:
    """Mean over the spatial dimensions of x [N, C, …]."""
    spatial = tuple(range(2, x[0].ndim))
    count = x[0][0, 0].numel()
    total = (x[0].int() - _zero(x)).sum(spatial, keepdim=True)
    return _requantized(total, x[1] / (y[0] * float(count)), y)


def average_pool(x: Codes, y: Result, **attributes: Any) -> Tensor:  # noqa: ANN401 - AveragePool's own
    """Mean over windows of the dequantized codes; the zero point is added before rounding."""
    mean = AveragePool((x[0].int() - _zero(x)).float() * x[1], **attributes)
    return _saturated(torch.round(mean / y[0] + y[1].float()), y)


KERNELS: dict[str, tuple[Kernel, int]] = {
    "Conv": (conv, 3),
    "Gemm": (gemm, 3),
    "MatMul": (matmul, 2),
    "Add": (add, 2),
    "Mul": (mul, 2),
    "GlobalAveragePool": (global_average_pool, 1),
    "AveragePool": (average_pool, 1),
}
"""Operator -> its kernel and how many inputs that takes; operators that only move codes need none."""


def _scalar(parameter: Tensor) -> Tensor:
    return parameter.reshape(())


def _zero(x: Codes) -> Tensor:
    return torch.zeros(1, dtype=torch.int32) if x[2] is None else x[2].to(torch.int32)


def _centred(x: Codes, dtype: torch.dtype) -> Tensor:
    """Codes less their zero point (one for the tensor)."""
    zero = _zero(x).flatten()
    if bool((zero != zero[0]).any()):
        raise ValueError("zero points that differ between channels have no integer kernel")
    return x[0].to(dtype).sub_(zero[0].to(dtype))


def _bias(x: Codes, w: Codes, b: Codes) -> Tensor:
    """The bias in units of x's scale times w's, in float64, as it may well exceed 2^24 where a scale is tiny.

    One that is stored in float is rounded to those units.
    """
    if b[1] is None:
        return torch.round(b[0] / (_scalar(x[1]) * w[1].reshape(-1))).double()
    return b[0].double()


def _reach(x: Codes, w: Codes, summed: Sequence[int]) -> float:
    """What no sum of products can exceed, whatever x holds; a sum runs over the dimensions `summed` of w."""
    codes = torch.iinfo(x[0].dtype)
    zero = _zero(x).double()
    furthest = torch.maximum(codes.max - zero, zero - codes.min).max()
    return float(_centred(w, torch.float64).abs().sum(tuple(summed)).max() * furthest)


def _exact_type(reach: float) -> torch.dtype:
    """The type in which sums up to `reach` are exact."""
    return torch.float32 if reach < _EXACT_IN_FLOAT32 else torch.float64


def _fused(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """a · b + c with one rounding, as the fused instruction does it (exact in float64 for codes times a scale)."""
    return (a.double() * b.double() + c.double()).float()


def _requantized(total: Tensor, scale: Tensor, y: Result) -> Tensor:
    """The sum as float32 times the scale, rounded half to even; the zero point is added to the integer.

    Overwrites `total`: fresh memory for every step costs more than the steps.
    """
    return _saturated(total.float().mul_(scale).round_().add_(y[1].float()), y)


def _saturated(codes: Tensor, y: Result) -> Tensor:
    limits = torch.iinfo(y[1].dtype)
    return codes.clamp_(limits.min, limits.max).to(y[1].dtype)
