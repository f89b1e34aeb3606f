"""Activations: elementwise non-linearities, and softmax along an axis."""
# ruff: noqa: N802 - functions are named after their ONNX operators

import torch
import torch.nn.functional as F
from torch import Tensor


def Relu(x: Tensor) -> Tensor:
    return torch.relu(x)


def LeakyRelu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return F.leaky_relu(x, alpha)


def PRelu(x: Tensor, slope: Tensor) -> Tensor:
    """`slope` broadcasts to x from the right (a channel-wise slope has shape [C, 1, 1])."""
    return torch.where(x < 0, x * slope, x)


def Elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.elu(x, alpha)


def Selu(x: Tensor, *, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805) -> Tensor:
    return gamma * F.elu(x, alpha)


def Celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return F.celu(x, alpha)


def ThresholdedRelu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return torch.where(x > alpha, x, torch.zeros_like(x))


def Shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    """x + bias below -lambd, x - bias above lambd, 0 between."""
    below = torch.where(x < -lambd, x + bias, torch.zeros_like(x))
    return torch.where(x > lambd, x - bias, below).to(x.dtype)


def Sigmoid(x: Tensor) -> Tensor:
    return torch.sigmoid(x)


def HardSigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    """clamp(alpha * x + beta, 0, 1)."""
    return torch.clamp(alpha * x + beta, 0.0, 1.0)


def HardSwish(x: Tensor) -> Tensor:
    return F.hardswish(x)


def Tanh(x: Tensor) -> Tensor:
    return torch.tanh(x)


def Softplus(x: Tensor) -> Tensor:
    # F.softplus turns linear above 20; this form is exact everywhere and as stable.
    return torch.logaddexp(x, torch.zeros_like(x))


def Softsign(x: Tensor) -> Tensor:
    return F.softsign(x)


def Gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return F.gelu(x, approximate=approximate)


def Mish(x: Tensor) -> Tensor:
    return F.mish(x)


def Swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """x * sigmoid(alpha * x)."""
    return x * torch.sigmoid(alpha * x)


def Clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """min(max(x, low), high): `high` wins where the bounds cross. The bounds are scalars."""
    if low is not None:
        x = torch.maximum(x, low.to(x.dtype))
    if high is not None:
        x = torch.minimum(x, high.to(x.dtype))
    return x


def Softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


def LogSoftmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.log_softmax(x, axis)


def Hardmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """One at the first largest element along `axis`, zero elsewhere."""
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)
