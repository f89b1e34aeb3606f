"""Normalizations of x [N, C, …], in evaluation mode."""
# ruff: noqa: N802, ARG001 - functions are named after their ONNX operators and take all their attributes

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from convkit.compress.ops.cast import DTYPES


def _channels(parameter: Tensor, x: Tensor) -> Tensor:
    return parameter.reshape(-1, *[1] * (x.ndim - 2))


def BatchNormalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Tensor:
    """(x - mean) / sqrt(var + epsilon) * scale + bias, per channel."""
    if training_mode:
        raise ValueError("BatchNormalization is in training mode")
    return F.batch_norm(x, mean, var, scale, bias, training=False, eps=epsilon)


def InstanceNormalization(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    """Every channel of every sample over its spatial dimensions."""
    dims = list(range(2, x.ndim))
    centred = x - x.mean(dims, keepdim=True)
    variance = (centred * centred).mean(dims, keepdim=True)
    return centred * torch.rsqrt(variance + epsilon) * _channels(scale, x) + _channels(bias, x)


def GroupNormalization(
    x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5, num_groups: int, stash_type: int = 1
) -> Tensor:
    """Groups of channels over their spatial dimensions; scale and bias are per channel."""
    return F.group_norm(x.to(DTYPES[stash_type]), num_groups, eps=epsilon).to(x.dtype) * _channels(
        scale, x
    ) + _channels(bias, x)


def LayerNormalization(
    x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    """The dimensions from `axis` on, computed in `stash_type`."""
    shape = x.shape[axis % x.ndim :]
    y = F.layer_norm(x.to(DTYPES[stash_type]), shape, eps=epsilon).to(x.dtype) * scale
    return y if bias is None else y + bias


def RMSNormalization(x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Tensor:
    """x over the root of its mean square, taken over the dimensions from `axis` on."""
    wide = x.to(DTYPES[stash_type])
    square = (wide * wide).mean(list(range(axis % x.ndim, x.ndim)), keepdim=True)
    return (wide * torch.rsqrt(square + epsilon)).to(x.dtype) * scale


def LRN(x: Tensor, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int) -> Tensor:
    """x / (bias + alpha/size · sum of squares over `size` neighbouring channels) ** beta."""
    before, after = (size - 1) // 2, size // 2
    square = (x * x).reshape(x.shape[0], 1, x.shape[1], -1)
    total = F.avg_pool2d(F.pad(square, (0, 0, before, after)), (size, 1), stride=1)
    return x / (bias + alpha * total.reshape(x.shape)) ** beta


def LpNormalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    """x over its norm along `axis`; where the norm is 0 the result is 0."""
    norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / torch.where(norm == 0, torch.ones_like(norm), norm))


def MeanVarianceNormalization(x: Tensor, *, axes: Sequence[int] = (0, 2, 3)) -> Tensor:
    """(x - mean) / (deviation + 1e-9), both over `axes`."""
    centred = x - x.mean(list(axes), keepdim=True)
    return centred / ((centred * centred).mean(list(axes), keepdim=True).sqrt() + 1e-9)
