"""Rounding that is trained through: numbers go on in a format, gradients as if they had not been rounded.

LSQ (Esser et al., Learned Step Size Quantization, ICLR 2020, equations 1 to 3): the gradient of a scale is what
rounding moved a number by, in steps, or the end of the codes where it was clipped. Scales are learned in the log, as
thresholds in TQT (Jain et al., MLSys 2020), so that they stay positive and one rate suits them all.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convkit.compress.floating import Floating
from convkit.compress.format import Format, Integer

_KEPT = 0.99
"""Of a range that follows its batches, from one to the next."""
_MOMENTUM, _EPSILON = 0.1, 1e-5
"""Of norms, torch's own."""


class Scale(nn.Module):
    """A scale that is learned, of the shape of `start`."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", start.detach().clone())
        self.log = nn.Parameter(torch.zeros_like(start))

    def forward(self) -> Tensor:
        """Positive, as it is now."""
        start: Tensor = self.get_buffer("start")
        return start * torch.exp2(self.log)

    def put(self, value: Tensor) -> None:
        """Be `value` from here on."""
        with torch.no_grad():
            self.get_buffer("start").copy_(value)
            self.log.zero_()


class Times(nn.Module):
    """The scale `of` another width, times a power of two."""

    def __init__(self, of: Scale, factor: float) -> None:
        super().__init__()
        self.of, self._factor = of, factor

    def forward(self) -> Tensor:
        """As it is now."""
        scale: Tensor = self.of()
        return scale * self._factor

    def put(self, value: Tensor) -> None:
        """Be `value` from here on, and the other with it."""
        self.of.put(value / self._factor)


class Following(nn.Module):
    """A scale that follows the ranges that batches have, of codes from `low` to `high` around the zero point."""

    def __init__(self, start: Tensor, low: float, high: float) -> None:
        super().__init__()
        self.register_buffer("now", start.detach().clone())
        self._low, self._high = low, high

    def forward(self) -> Tensor:
        """As it is now, which the next batch does not change."""
        return self.get_buffer("now").clone()

    def see(self, x: Tensor) -> None:
        """Come nearer to what covers `x`; nothing but zeros leaves it where it is."""
        ends = (float(x.min()), self._low), (float(x.max()), self._high)
        widest = max((value / code for value, code in ends if code), default=0.0)
        if widest > 0 and math.isfinite(widest):
            self.get_buffer("now").mul_(_KEPT).add_((1 - _KEPT) * widest)


def bounds(number: Format) -> tuple[float, float]:
    """Codes, or numbers at scale 1, at which `number` saturates."""
    if isinstance(number, Integer):
        return number.low, number.high
    assert isinstance(number, Floating)  # what is only cast has no scale  # noqa: S101
    return -number.largest, number.largest


def straight(number: Format, x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """`x` at `scale` as codes of `number` less the zero point, in float32; the gradient is that of clipping alone."""
    found: Tensor = _Straight.apply(x, scale, zero, number)  # type: ignore[no-untyped-call]
    return found


class _Straight(torch.autograd.Function):
    """One step forward and one back, which keep `x` alone: each of the many that this consists of would keep as much as
    every activation takes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: Tensor, number: Format) -> Tensor:  # noqa: ANN401 - torch's own
        low, high = (end - float(zero) for end in bounds(number))
        ctx.save_for_backward(x, scale)
        ctx.ends = low, high
        steps = x / scale
        if isinstance(number, Integer):
            return number.nearest(steps).clamp_(low, high)
        return _values(number, steps.clamp_(low, high))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:  # noqa: ANN401 - torch's own
        (x, scale), (low, high) = ctx.saved_tensors, ctx.ends
        steps = x / scale
        passed = torch.where((steps < low) | (steps > high), 0.0, gradient).div_(scale)
        return passed, steps.mul_(passed).neg_().sum_to_size(scale.shape), None, None


def _values(number: Format, codes: Tensor) -> Tensor:
    assert isinstance(number, Floating)  # what is only cast has no scale  # noqa: S101
    return number.values(codes)


class Quantize(nn.Module):
    """Numbers to codes, as QuantizeLinear has them, but in float32."""

    def __init__(self, number: Format, scale: Scale | Following, zero: Tensor) -> None:
        super().__init__()
        self.number, self.scale = number, scale
        self.register_buffer("zero", zero.detach().float().clone())
        self.shifted = bool(zero)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and isinstance(self.scale, Following):
            self.scale.see(x.detach())
        zero = self.get_buffer("zero")
        codes = straight(self.number, x, self.scale(), zero)
        return codes + zero if self.shifted else codes


class Dequantize(nn.Module):
    """Codes in float32 back to numbers, with the scale of whoever made them."""

    def __init__(self, of: Quantize) -> None:
        super().__init__()
        self.of = of

    def forward(self, codes: Tensor) -> Tensor:
        numbers = codes - self.of.get_buffer("zero") if self.of.shifted else codes
        found: Tensor = numbers * self.of.scale()
        return found


class Cast(nn.Module):
    """A weight that is held in a type without a scale."""

    def __init__(self, number: Format, weight: Tensor) -> None:
        super().__init__()
        self.number, self.weight = number, nn.Parameter(weight)

    def forward(self) -> Tensor:
        with torch.no_grad():
            one = torch.ones(())
            moved = self.number.fake(self.weight, one, one) - self.weight
        return self.weight + moved


class Weight(nn.Module):
    """A weight and its scales, which `axis` and `size` spread over it as DequantizeLinear does."""

    def __init__(self, number: Format, weight: Tensor, scale: Scale, spread: dict[str, int]) -> None:
        super().__init__()
        self.number, self.weight, self._spread = number, nn.Parameter(weight), spread
        self.scale: Scale | Times = scale

    def across(self) -> Tensor:
        """The scale of each number."""
        from convkit.compress import ops

        scale: Tensor = self.scale()
        if not self._spread:
            return scale
        found: Tensor = ops.function("DequantizeLinear")(torch.ones_like(self.weight), scale, **self._spread)
        return found

    def forward(self) -> Tensor:
        across = self.across()
        return straight(self.number, self.weight, across, torch.zeros(())) * across


class Bias(nn.Module):
    """A bias in codes of accumulators, whose step is that of what is read times that of the weight: a coarse one where
    these have few bits."""

    def __init__(self, bias: Tensor, reads: Quantize, weight: Weight) -> None:
        super().__init__()
        self.bias, self.reads, self.weight = nn.Parameter(bias), reads, weight

    def forward(self) -> Tensor:
        found: Tensor = self.bias + _moved(self.bias, self.reads.scale() * self.weight.scale().flatten())
        return found


def _moved(bias: Tensor, step: Tensor) -> Tensor:
    """What rounding to codes of that step adds, without a gradient."""
    with torch.no_grad():
        return torch.round(bias / step) * step - bias


class Norm(nn.Module):
    """A batch norm [N, C, …] behind a convolution while that is trained, in place of its `bias`.

    It begins with the statistics that it sees before `begin`, so that it adds that bias and no more, and ends as a
    factor, positive, and a bias for each channel: codes stay what they are, the scale takes the factor. A bias that
    will be in codes, of what is read and of the weight, `stored`, is rounded to them.
    """

    def __init__(self, bias: Tensor, stored: tuple[Quantize, Weight] | None = None) -> None:
        super().__init__()
        self.reads: Quantize | None = None if stored is None else stored[0]
        self.weight: Weight | None = None if stored is None else stored[1]
        self.bias = nn.Parameter(bias.detach().clone())
        self.spread = Scale(torch.ones_like(bias))
        self.register_buffer("mean", torch.zeros_like(bias))
        self.register_buffer("variance", torch.ones_like(bias))
        self._sums: list[tuple[int, Tensor, Tensor]] | None = []

    def forward(self, x: Tensor) -> Tensor:
        if self._sums is not None:
            channels = x.detach().double().transpose(0, 1).flatten(1)
            self._sums.append((channels.shape[1], channels.sum(1), channels.square().sum(1)))
            return x + self.bias.reshape(-1, *[1] * (x.ndim - 2))
        mean, variance = self.get_buffer("mean"), self.get_buffer("variance")
        of_batch = self.training and x.numel() > x.shape[1]  # one number has no variance
        made = F.batch_norm(x, mean, variance, self.spread(), self.bias, of_batch, _MOMENTUM, _EPSILON)
        if self.reads is None or self.weight is None:
            return made
        with torch.no_grad():
            factor, bias = self.folded()
            moved = _moved(bias, self.reads.scale() * self.weight.scale().flatten() * factor)
        return made + moved.reshape(-1, *[1] * (x.ndim - 2))

    def begin(self) -> None:
        """Normalize, from what was seen."""
        assert self._sums  # something was  # noqa: S101
        count = sum(one for one, _, _ in self._sums)
        mean = torch.stack([total for _, total, _ in self._sums]).sum(0) / count
        variance = torch.stack([squares for _, _, squares in self._sums]).sum(0) / count - mean.square()
        with torch.no_grad():
            self.get_buffer("mean").copy_(mean)
            self.get_buffer("variance").copy_(variance.clamp(min=0))
            self.spread.get_buffer("start").copy_((variance.clamp(min=0) + _EPSILON).sqrt())
            self.bias.add_(mean)
        self._sums = None

    def take(self, other: Norm, made: Tensor | None) -> None:
        """Be what `other` is for the channels `made`, or for all."""
        picked = slice(None) if made is None else made
        self.bias = nn.Parameter(other.bias[picked])
        self.spread.put(other.spread()[picked])
        for name in ("mean", "variance"):
            self.get_buffer(name).copy_(other.get_buffer(name)[picked])
        self._sums = None

    def folded(self) -> tuple[Tensor, Tensor]:
        """(factor, bias) of each channel, by the statistics that it keeps."""
        factor = self.spread() / (self.get_buffer("variance") + _EPSILON).sqrt()
        return factor, self.bias - self.get_buffer("mean") * factor
