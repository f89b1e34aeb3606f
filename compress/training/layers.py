"""What is learnt of each layer, and how it is written into the quantized Model: codes, scales and biases."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from convkit.compress import behind, patches, stored
from convkit.compress import graph as graphs
from convkit.compress.training.rounded import Cast, Norm, Quantize, Weight, bounds

_BIAS_CODES = 2.0**30
"""Bias codes stay below this, so that accumulating onto one cannot overflow 32 bits."""


@dataclass(slots=True)
class Read:
    """An activation that is rounded: the module that does it, and nodes of the quantized graph that hold its scale."""

    rounds: Quantize
    holders: list[fx.Node] = field(default_factory=list)

    def write(self) -> None:
        """The scale into every constant that holds it, and the ends of codes into the Clips before."""
        scale, zero = self.rounds.scale(), self.rounds.get_buffer("zero")
        for node in self.holders:
            if graphs.operator(node) == "Clip":
                for end, code in zip(node.args[1:], bounds(self.rounds.number), strict=True):
                    held(end).copy_((code - zero) * scale)
            else:
                held(node.args[1]).copy_(scale)


@dataclass(slots=True)
class Layer:
    """A layer with a quantized weight: its node in the quantized graph, and what is learnt of it."""

    node: fx.Node
    weight: Weight | Cast
    bias: nn.Parameter | None
    reads: Read | None
    norm: Norm | None = None
    behind: nn.Parameter | None = None
    """The bias [m, 1, …] behind a Conv, where the target wants it there."""

    @property
    def key(self) -> str:
        """Its name in plans."""
        return str(self.node.meta["layer"])

    def take(self, other: Layer, made: Tensor | None = None, read: Tensor | None = None) -> None:
        """Be written as `other`, of which this has the outputs `made` and the inputs `read`: all, if not told."""
        if made is None and read is None:
            self.weight, self.bias, self.norm, self.behind = other.weight, other.bias, other.norm, other.behind
            return
        assert isinstance(self.weight, Weight)  # what is searched has scales  # noqa: S101
        assert isinstance(other.weight, Weight)  # noqa: S101
        with torch.no_grad():
            weight = patches.outputs_first(other.node, other.weight.weight)
            for axis, places in enumerate((made, read)):
                weight = weight if places is None else weight.index_select(axis, places)
            self.weight.weight = nn.Parameter(patches.outputs_first(self.node, weight).contiguous())
            scale = other.weight.scale()
            self.weight.scale.put(_picked(scale.flatten(), made).reshape(self.weight.scale().shape))
            if other.bias is not None:
                self.bias = nn.Parameter(_picked(other.bias, made))
            if other.behind is not None:
                self.behind = nn.Parameter(_picked(other.behind, made))
            if other.norm is not None and self.norm is not None:
                self.norm.take(other.norm, made)

    def write(self) -> None:
        """Codes, scales and bias."""
        numbers, biased = self.node.args[1], stored.bias(self.node)
        assert isinstance(numbers, fx.Node)  # noqa: S101 - it gives the layer's weight
        bias: Tensor | None = self.bias
        if isinstance(self.weight, Cast):
            given = held(numbers.args[0])
            given.copy_(self.weight.weight.to(given.dtype))
        else:
            bias = _write_weight(self, self.weight, numbers, biased)
        if biased is not None and bias is not None:
            stored.write_bias(biased, bias.double())
        added = behind.bias(self.node)
        if added is not None and self.behind is not None:
            added.copy_(self.behind)


def _picked(values: Tensor, places: Tensor | None) -> Tensor:
    """Those of channels, of which there may be one for all."""
    return values if places is None or values.numel() == 1 else values[places]


def held(node: Any) -> Tensor:  # noqa: ANN401 - fx arguments are anything
    """The constant that `node` gives."""
    found = graphs.constant(node)
    assert found is not None  # it is stored  # noqa: S101
    return found


def _write_weight(layer: Layer, weight: Weight, numbers: fx.Node, biased: fx.Node | None) -> Tensor | None:
    """Codes and scales of a weight, the scale of its bias; the bias."""
    scale, added = weight.scale(), biased is not None and graphs.constant(biased) is None
    bias: Tensor | None = layer.bias
    factor = torch.ones_like(scale)
    if layer.norm is not None:
        factors, bias = layer.norm.folded()
        factor = factors.reshape(scale.shape)
    if added and layer.reads is not None and bias is not None and biased is not None:
        read = layer.reads.rounds.scale()
        least = bias.abs() / (read * _BIAS_CODES) / factor
        scale = torch.maximum(scale, least if scale.ndim else least.max())
        weight.scale.put(scale)
        held(biased.args[1]).copy_(read * scale * factor)
    stands = stored.weight(layer.node)
    assert stands is not None  # its format has a scale  # noqa: S101
    held(numbers.args[1]).copy_(scale)
    across = stands.scale.expand(stands.codes.shape)
    stands.codes.copy_(weight.number.codes(weight.weight, across, torch.zeros_like(across)))
    held(numbers.args[1]).copy_(scale * factor)
    return bias
