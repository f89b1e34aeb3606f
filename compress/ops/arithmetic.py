"""Elementwise arithmetic; operands broadcast as in numpy, which is ONNX's multidirectional broadcasting."""
# ruff: noqa: N802 - functions are named after their ONNX operators

import functools

import torch
from torch import Tensor


def Add(a: Tensor, b: Tensor) -> Tensor:
    return torch.add(a, b)


def Sub(a: Tensor, b: Tensor) -> Tensor:
    return torch.sub(a, b)


def Mul(a: Tensor, b: Tensor) -> Tensor:
    return torch.mul(a, b)


def Div(a: Tensor, b: Tensor) -> Tensor:
    """Integers divide towards zero, as in C."""
    if a.is_floating_point():
        return torch.div(a, b)
    return torch.div(a, b, rounding_mode="trunc")


def Mod(a: Tensor, b: Tensor, *, fmod: int = 0) -> Tensor:
    """The remainder with the divisor's sign, or with the dividend's (`fmod`)."""
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


def Pow(x: Tensor, exponent: Tensor) -> Tensor:
    """The result has the base's type, whatever the exponent's is."""
    if exponent.numel() == 1 and exponent.ndim <= x.ndim and x.is_floating_point():
        return torch.pow(x, exponent.item()) if not exponent.requires_grad else torch.pow(x, exponent)
    return torch.pow(x, exponent).to(x.dtype)


def Neg(x: Tensor) -> Tensor:
    return torch.neg(x)


def Abs(x: Tensor) -> Tensor:
    return torch.abs(x)


def Sqrt(x: Tensor) -> Tensor:
    return torch.sqrt(x)


def Reciprocal(x: Tensor) -> Tensor:
    return torch.reciprocal(x)


def Exp(x: Tensor) -> Tensor:
    return torch.exp(x)


def Log(x: Tensor) -> Tensor:
    return torch.log(x)


def Floor(x: Tensor) -> Tensor:
    return torch.floor(x)


def Ceil(x: Tensor) -> Tensor:
    return torch.ceil(x)


def Round(x: Tensor) -> Tensor:
    """Halves go to the even neighbour."""
    return torch.round(x)


def Sign(x: Tensor) -> Tensor:
    return torch.sign(x)


def Erf(x: Tensor) -> Tensor:
    return torch.erf(x)


def Sum(*inputs: Tensor) -> Tensor:
    return functools.reduce(torch.add, inputs)


def Mean(*inputs: Tensor) -> Tensor:
    return functools.reduce(torch.add, inputs) / len(inputs)


def Max(*inputs: Tensor) -> Tensor:
    return functools.reduce(torch.maximum, inputs)


def Min(*inputs: Tensor) -> Tensor:
    return functools.reduce(torch.minimum, inputs)


def CumSum(x: Tensor, axis: Tensor, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """Running sum along `axis`; `exclusive` leaves the element itself out, `reverse` runs from the end."""
    dim = int(axis.item())
    ordered = x.flip(dim) if reverse else x
    total = torch.cumsum(ordered, dim, dtype=x.dtype)
    if exclusive:
        total = total - ordered
    return total.flip(dim) if reverse else total


def Sin(x: Tensor) -> Tensor:
    return torch.sin(x)


def Cos(x: Tensor) -> Tensor:
    return torch.cos(x)


def Tan(x: Tensor) -> Tensor:
    return torch.tan(x)


def Asin(x: Tensor) -> Tensor:
    return torch.asin(x)


def Acos(x: Tensor) -> Tensor:
    return torch.acos(x)


def Atan(x: Tensor) -> Tensor:
    return torch.atan(x)


def Sinh(x: Tensor) -> Tensor:
    return torch.sinh(x)


def Cosh(x: Tensor) -> Tensor:
    return torch.cosh(x)


def Asinh(x: Tensor) -> Tensor:
    return torch.asinh(x)


def Acosh(x: Tensor) -> Tensor:
    return torch.acosh(x)


def Atanh(x: Tensor) -> Tensor:
    return torch.atanh(x)
