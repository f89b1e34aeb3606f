"""Activations and other functions of one tensor, element by element."""

from __future__ import annotations

import torch
from torch import fx

from convkit.compress.sources._aten import Result, Translate
from convkit.compress.sources._aten_graph import Builder, Constant, Number, Operand, shape, value


def _plain(operator: str) -> Translate:
    """An operator that ONNX has as it is; integers are first made what torch makes of them."""

    def translate(b: Builder, x: Operand, *_: object) -> Result:
        return b.op(operator, b.cast(x, b.val.dtype))

    return translate


def _test(operator: str) -> Translate:
    """An operator from any type to bool."""
    return lambda b, x: b.op(operator, x)


def _logical_not(b: Builder, x: Operand) -> Result:
    return b.op("Not", b.cast(x, torch.bool))


def _bitwise_not(b: Builder, x: Operand) -> Result:
    return b.op("Not" if value(x).dtype == torch.bool else "BitwiseNot", x)


def _hardsigmoid(b: Builder, x: Operand) -> Result:
    return b.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)


def _silu(b: Builder, x: Operand) -> Result:
    return b.op("Mul", x, b.op("Sigmoid", x))


def _gelu(b: Builder, x: Operand, approximate: str) -> Result:
    return b.op("Gelu", x, approximate=approximate)


def _leaky_relu(b: Builder, x: Operand, negative_slope: float) -> Result:
    return b.op("LeakyRelu", x, alpha=float(negative_slope))


def _elu(b: Builder, x: Operand, alpha: float, scale: float, input_scale: float) -> Result:
    if scale == input_scale == 1:
        return b.op("Elu", x, alpha=float(alpha))
    if (input_scale, round(alpha, 6), round(scale, 6)) == (1, 1.673263, 1.050701):
        return b.op("Selu", x, alpha=float(alpha), gamma=float(scale))
    raise b.refuse("an elu with a scale")


def _selu(b: Builder, x: Operand) -> Result:
    return b.op("Selu", x, alpha=1.6732632423543772, gamma=1.0507009873554805)


def _celu(b: Builder, x: Operand, alpha: float) -> Result:
    return b.op("Celu", x, alpha=float(alpha))


def _softplus(b: Builder, x: Operand, beta: float, threshold: float) -> Result:
    """Above the threshold torch returns x itself; there the two differ by less than exp(-threshold)."""
    if threshold < 15:  # noqa: PLR2004 - exp(-15) is what float32 cannot see beside 15
        raise b.refuse(f"a softplus with threshold {threshold}")
    if beta == 1:
        return b.op("Softplus", x)
    scale = b.constant(beta, value(x).dtype)
    return b.op("Div", b.op("Softplus", b.op("Mul", x, scale)), scale)


def _log_sigmoid(b: Builder, x: Operand) -> Result:
    return b.op("Neg", b.op("Softplus", b.op("Neg", x)))


def _prelu(b: Builder, x: Operand, weight: Operand) -> Result:
    """ONNX broadcasts the slopes from the right, torch puts them on axis 1."""
    after = len(shape(x)) - 2
    if shape(weight) != (1,) and after > 0:
        weight = b.op("Unsqueeze", weight, b.integers(*range(1, after + 1)))
    return b.op("PRelu", x, weight)


def _clamp(b: Builder, x: Operand, low: Operand | Number | None = None, high: Operand | Number | None = None) -> Result:
    x = b.cast(x, b.val.dtype)
    bounds = [None if bound is None else b.cast(bound, b.val.dtype) for bound in (low, high)]
    if all(bound is None or not isinstance(bound, fx.Node | Constant) or not shape(bound) for bound in (low, high)):
        return b.op("Clip", x, *bounds)
    for operator, bound in zip(("Max", "Min"), bounds, strict=True):
        x = x if bound is None else b.op(operator, x, bound)
    return x


def _clamp_max(b: Builder, x: Operand, high: Operand | Number) -> Result:
    return _clamp(b, x, None, high)


def _relu6(b: Builder, x: Operand) -> Result:
    return _clamp(b, x, 0.0, 6.0)


def _threshold(b: Builder, x: Operand, threshold: float, fill: float) -> Result:
    limit, other = b.constant(threshold, value(x).dtype), b.constant(fill, value(x).dtype)
    return b.op("Where", b.op("Greater", x, limit), x, other)


def _hardshrink(b: Builder, x: Operand, limit: float) -> Result:
    return b.op("Shrink", x, lambd=float(limit), bias=0.0)


def _softshrink(b: Builder, x: Operand, limit: float) -> Result:
    return b.op("Shrink", x, lambd=float(limit), bias=float(limit))


def _rsqrt(b: Builder, x: Operand) -> Result:
    return b.op("Reciprocal", b.op("Sqrt", b.cast(x, b.val.dtype)))


def _square(b: Builder, x: Operand) -> Result:
    return b.op("Mul", x, x)


def _log1p(b: Builder, x: Operand) -> Result:
    return b.op("Log", b.op("Add", x, b.constant(1, value(x).dtype)))


def _expm1(b: Builder, x: Operand) -> Result:
    return b.op("Sub", b.op("Exp", x), b.constant(1, value(x).dtype))


def _glu(b: Builder, x: Operand, axis: int) -> Result:
    half = shape(x)[axis]
    if not isinstance(half, int):
        raise b.refuse("a glu along a free size")
    outputs = b.op("Split", x, b.integers(half // 2, half // 2), axis=axis % len(shape(x)))
    return b.op("Mul", b.pick(outputs, 0), b.op("Sigmoid", b.pick(outputs, 1)))


def _softmax(operator: str) -> Translate:
    def translate(b: Builder, x: Operand, axis: int, dtype: torch.dtype | bool | None = None) -> Result:
        """`_softmax` has a flag in place of the type, which matters on a GPU only."""
        x = b.cast(x, dtype) if isinstance(dtype, torch.dtype) else x
        return b.op(operator, x, axis=axis)

    return translate


def _round(b: Builder, x: Operand, decimals: int = 0) -> Result:
    x = b.cast(x, b.val.dtype)
    factor = b.cast(10.0**decimals, value(x).dtype)
    return b.op("Div", b.op("Round", b.op("Mul", x, factor)), factor)


TABLE: dict[str, Translate] = {
    **{
        name: _plain(operator)
        for name, operator in {
            "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp", "log": "Log", "abs": "Abs",
            "neg": "Neg", "sqrt": "Sqrt", "erf": "Erf", "floor": "Floor", "ceil": "Ceil", "round": "Round",
            "sign": "Sign", "reciprocal": "Reciprocal", "sin": "Sin", "cos": "Cos", "tan": "Tan", "asin": "Asin",
            "acos": "Acos", "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh", "asinh": "Asinh", "acosh": "Acosh",
            "atanh": "Atanh", "mish": "Mish", "hardswish": "HardSwish",
        }.items()
    },
    "round.decimals": _round,
    "isnan": _test("IsNaN"), "isinf": _test("IsInf"), "logical_not": _logical_not, "bitwise_not": _bitwise_not,
    "hardsigmoid": _hardsigmoid, "silu": _silu, "gelu": _gelu, "leaky_relu": _leaky_relu, "elu": _elu,
    "selu": _selu, "celu": _celu, "softplus": _softplus, "log_sigmoid": _log_sigmoid, "prelu": _prelu,
    "clamp": _clamp, "clamp_min": _clamp, "clamp_max": _clamp_max, "hardtanh": _clamp, "relu6": _relu6,
    "threshold": _threshold, "hardshrink": _hardshrink, "softshrink": _softshrink, "rsqrt": _rsqrt,
    "square": _square, "log1p": _log1p, "expm1": _expm1, "glu": _glu,
    "softmax": _softmax("Softmax"), "_softmax": _softmax("Softmax"),
    "log_softmax": _softmax("LogSoftmax"), "_log_softmax": _softmax("LogSoftmax"),
}  # fmt: skip
