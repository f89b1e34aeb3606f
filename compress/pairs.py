"""Pairs: what a tensor is rounded by between its maker and those who read it.

QuantizeLinear and DequantizeLinear where the format has a type that they know, a Clip before them where it has fewer
codes than its type; two casts for what is only cast; and an operator of convkit's own where ONNX has nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from convkit.compress import graph as graphs
from convkit.compress import ops
from convkit.compress.floating import ExMy, Floating
from convkit.compress.format import Format, Integer
from convkit.compress.ops.cast import DTYPES

BY_ENGINE = "by_engine"
"""Mark in the meta of casts that an engine makes by itself: they simulate it, no file holds them."""
NUMBER = "number"
"""Mark in the meta of nodes that round: their Format, which a type with more codes does not tell."""
ROOT = "root"
"""Mark in the meta of nodes that round: whose range they have, which is shared by what only moves numbers."""
_FLOAT = 1
"""float32 as ONNX numbers it."""


@dataclass(frozen=True, slots=True)
class Codes:
    """How a tensor is rounded: its format, and the scale and zero point that its range gives."""

    number: Format
    scale: Tensor
    zero: Tensor
    by_engine: bool = False
    """Whether the engine does it by itself."""

    @classmethod
    def covering(cls, number: Format, low: float, high: float, *, by_engine: bool = False) -> Codes:
        """Those of `number` for the range [low, high]."""
        return cls(number, *number.parameters(torch.tensor(low), torch.tensor(high)), by_engine)

    def saturate_at(self, low: float, high: float) -> bool:
        """Whether no number from below `low` or beyond `high` has a code of its own."""
        if not isinstance(self.number, Integer):
            return False
        first, last = (torch.round(torch.tensor(bound) / self.scale) + self.zero for bound in (low, high))
        return bool(first <= self.number.low and last >= self.number.high)


@dataclass(frozen=True, slots=True)
class Pair:
    """The node whose result is stored, and the one that gives its numbers back."""

    stored: fx.Node
    numbers: fx.Node


def insert(graph: fx.GraphModule, source: fx.Node, name: str, codes: Codes) -> Pair:
    """Nodes behind `source` that round it; nobody reads them yet. `name` is the tensor's."""
    number = codes.number
    if not number.ranged:
        return _casts(graph, source, name, codes)
    anchor = next(node for node in graph.graph.nodes if node.op != "placeholder")
    scale = graphs.store(graph, anchor, f"{name}_scale", codes.scale)
    behind = scale if source.op == "placeholder" else source
    if isinstance(number, Floating) and not number.native:
        attributes = {"exponent": number.exponent, "mantissa": number.mantissa, "largest": number.largest}
        node = graphs.call(behind, ExMy, (source, scale), f"{name}_rounded", **attributes)  # type: ignore[arg-type]
        node.meta[NUMBER] = number
        return Pair(node, node)
    zero = graphs.store(graph, anchor, f"{name}_zero_point", codes.zero.to(number.dtype()))
    behind = zero if source.op == "placeholder" else source
    if isinstance(number, Integer) and not number.native:
        source = behind = _clip(graph, behind, source, name, codes)
    quantized = graphs.call(behind, ops.function("QuantizeLinear"), (source, scale, zero), f"{name}_quantized")
    quantized.meta[NUMBER] = number
    return Pair(quantized, dequantized(quantized, name, scale, zero))


def on_codes(graph: fx.GraphModule, node: fx.Node, name: str, codes: Codes) -> Pair:
    """`node`, which only moves numbers, reading the codes that were dequantized for it, and so making codes."""
    anchor = next(node for node in graph.graph.nodes if node.op != "placeholder")
    scale = graphs.store(graph, anchor, f"{name}_scale", codes.scale)
    zero = graphs.store(graph, anchor, f"{name}_zero_point", codes.zero.to(codes.number.dtype()))
    source, rest = node.args[0], node.args[1:]
    assert isinstance(source, fx.Node)  # noqa: S101 - its input was given a pair before it
    if graphs.operator(node) == "Pad" and node.kwargs.get("mode", "constant") == "constant":
        rest = (rest[0], zero, *rest[2:])  # the code of 0
    node.args = (source.args[0], *rest)
    return Pair(node, dequantized(node, name, scale, zero))


def dequantized(quantized: fx.Node, name: str, scale: fx.Node, zero: fx.Node) -> fx.Node:
    """DequantizeLinear behind `quantized`."""
    return graphs.call(quantized, ops.function("DequantizeLinear"), (quantized, scale, zero), f"{name}_dequantized")


def _clip(graph: fx.GraphModule, behind: fx.Node, source: fx.Node, name: str, codes: Codes) -> fx.Node:
    """`source` clipped where the codes end, which are fewer than their type has."""
    number = codes.number
    assert isinstance(number, Integer)  # noqa: S101 - the caller looked
    ends = [(end - codes.zero) * codes.scale for end in (number.low, number.high)]
    first = next(node for node in graph.graph.nodes if node.op != "placeholder")
    bounds = [
        graphs.store(graph, first, f"{name}_{end}", bound) for end, bound in zip(("low", "high"), ends, strict=True)
    ]
    clip = graphs.call(behind, ops.function("Clip"), (source, *bounds), f"{name}_clipped")
    clip.meta[NUMBER] = number
    return clip


def _casts(graph: fx.GraphModule, source: fx.Node, name: str, codes: Codes) -> Pair:
    number = codes.number
    behind = graphs.behind_inputs(graph) if source.op == "placeholder" else source
    kind = next(kind for kind, dtype in DTYPES.items() if dtype == number.dtype())
    stored = graphs.call(behind, ops.function("Cast"), (source,), f"{name}_{number.storage}", to=kind)
    numbers = graphs.call(stored, ops.function("Cast"), (stored,), f"{name}_float32", to=_FLOAT)
    for node in (stored, numbers):
        node.meta[BY_ENGINE] = codes.by_engine
    return Pair(stored, numbers)


def redirect(source: fx.Node, readers: Iterable[fx.Node], pair: Pair, *, codes: Iterable[fx.Node] = ()) -> None:
    """`readers` of `source` read the numbers of `pair` instead, those in `codes` what is stored."""
    of_codes = set(codes)
    for reader in readers:
        reader.replace_input_with(source, pair.stored if reader in of_codes else pair.numbers)
