"""Matrix products."""
# ruff: noqa: N802 - functions are named after their ONNX operators

import torch
from torch import Tensor


def MatMul(a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(a, b)


def Gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """alpha · a' · b' + beta · c, where ' transposes if its attribute says so and c broadcasts."""
    product = (a.T if transA else a) @ (b.T if transB else b)
    if alpha != 1.0:
        product = alpha * product
    if c is None:
        return product
    return product + (c if beta == 1.0 else beta * c)


def Einsum(*inputs: Tensor, equation: str) -> Tensor:
    return torch.einsum(equation, *inputs)


def MatMulInteger(
    a: Tensor, b: Tensor, a_zero_point: Tensor | None = None, b_zero_point: Tensor | None = None
) -> Tensor:
    """(a - a_zero_point) · (b - b_zero_point) in int32; zero points per tensor, per row of a, per column of b."""
    left, right = a.to(torch.int32), b.to(torch.int32)
    if a_zero_point is not None:
        zero = a_zero_point.to(torch.int32)
        left = left - (zero.unsqueeze(-1) if zero.ndim == 1 and zero.numel() > 1 else zero)
    if b_zero_point is not None:
        right = right - b_zero_point.to(torch.int32)
    return torch.matmul(left, right)
