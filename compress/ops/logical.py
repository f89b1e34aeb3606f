"""Comparison, logic and bits; operands broadcast as in numpy."""
# ruff: noqa: N802 - functions are named after their ONNX operators

import torch
from torch import Tensor


def Equal(a: Tensor, b: Tensor) -> Tensor:
    return torch.eq(a, b)


def Greater(a: Tensor, b: Tensor) -> Tensor:
    return torch.gt(a, b)


def GreaterOrEqual(a: Tensor, b: Tensor) -> Tensor:
    return torch.ge(a, b)


def Less(a: Tensor, b: Tensor) -> Tensor:
    return torch.lt(a, b)


def LessOrEqual(a: Tensor, b: Tensor) -> Tensor:
    return torch.le(a, b)


def And(a: Tensor, b: Tensor) -> Tensor:
    return torch.logical_and(a, b)


def Or(a: Tensor, b: Tensor) -> Tensor:
    return torch.logical_or(a, b)


def Xor(a: Tensor, b: Tensor) -> Tensor:
    return torch.logical_xor(a, b)


def Not(x: Tensor) -> Tensor:
    return torch.logical_not(x)


def Where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(condition, a, b)


def IsNaN(x: Tensor) -> Tensor:
    return torch.isnan(x)


def IsInf(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    positive, negative = torch.isposinf(x), torch.isneginf(x)
    if detect_negative and detect_positive:
        return positive | negative
    if detect_positive:
        return positive
    return negative if detect_negative else torch.zeros_like(positive)


def BitwiseAnd(a: Tensor, b: Tensor) -> Tensor:
    return torch.bitwise_and(a, b)


def BitwiseOr(a: Tensor, b: Tensor) -> Tensor:
    return torch.bitwise_or(a, b)


def BitwiseXor(a: Tensor, b: Tensor) -> Tensor:
    return torch.bitwise_xor(a, b)


def BitwiseNot(x: Tensor) -> Tensor:
    return torch.bitwise_not(x)
