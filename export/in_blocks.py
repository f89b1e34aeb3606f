"""Long depthwise convolutions of series for an engine that runs those tap by tap: in blocks, as grouped ones.

The series is cut into blocks of B, which become channels; a block of the output is then the sum of Toeplitz matrices
[B, B] of the kernel times blocks of the input, which is a convolution of B channels into B whose taps are blocks.
Products are as many as before but for half a block at each end of the kernel. Weights, B times the taps, are made of
the taps by constant operators: the engine works them out when it opens the file, which holds no more than it did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from convkit.export.pattern import attributes, operand
from convkit.export.replacement import Replacement, names, replaced

if TYPE_CHECKING:
    import onnx

_BLOCK = 16
_LEAST = 128
"""Taps from which it pays: at 64 and fewer the engine's own way takes as long."""
_LARGEST = 1 << 26
"""Bytes of weights in blocks: networks hold many such layers, and each is held so while the file is open."""
_SERIES, _BIAS = 3, 2


def in_blocks(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, edited: its float32 depthwise convolutions of series, of stride 1 and many taps, in blocks."""
    known = _Known.of(model)
    spans = [_span(known, node) for node in model.graph.node]
    if not any(spans):
        return model
    taken = names(model)
    written = (
        _written(node, span, taken) if span else [node] for node, span in zip(model.graph.node, spans, strict=True)
    )
    return replaced(model, [made for nodes in written for made in nodes])


@dataclass(frozen=True, slots=True)
class _Known:
    """Shapes of float32 weights, also of those that are cast to it, and lengths of series that are not free."""

    weights: Mapping[str, Sequence[int]]
    lengths: Mapping[str, int]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> _Known:
        from onnx import TensorProto

        graph = model.graph
        stored = {tensor.name: tensor for tensor in graph.initializer}
        weights = {name: list(one.dims) for name, one in stored.items() if one.data_type == TensorProto.FLOAT}
        for node in graph.node:
            if node.op_type == "Cast" and node.input[0] in stored and attributes(node)["to"] == TensorProto.FLOAT:
                weights[node.output[0]] = list(stored[node.input[0]].dims)
        shapes = {value.name: value.type.tensor_type.shape.dim for value in (*graph.input, *graph.value_info)}
        lengths = {name: dims[-1].dim_value for name, dims in shapes.items() if len(dims) == _SERIES}
        return cls(weights, {name: length for name, length in lengths.items() if length})


@dataclass(frozen=True, slots=True)
class _Span:
    """A convolution of `taps`, padded by `begin` and `end`: blocks `first` to `last`, seen from that of the output."""

    channels: int
    taps: int
    begin: int
    end: int

    @property
    def margin(self) -> int:
        """What padding adds to the series less what the kernel takes away."""
        return self.begin + self.end - self.taps + 1

    @property
    def first(self) -> int:
        return -((self.begin + _BLOCK - 1) // _BLOCK)

    @property
    def last(self) -> int:
        return -((self.begin - self.taps + 1) // _BLOCK)

    @property
    def behind(self) -> int:
        """Blocks of padding behind: output of whole blocks covers `margin` more than the series."""
        return max(0, self.last - (-self.margin // _BLOCK))

    @property
    def count(self) -> int:
        return self.last - self.first + 1

    @property
    def held(self) -> int:
        """Bytes of the weights."""
        return self.channels * self.count * _BLOCK**2 * 4


def _span(known: _Known, node: onnx.NodeProto) -> _Span | None:
    """None where `node` is none of those, or the engine's own way is as good, or a free length may be less than the
    kernel wants: that is the engine's to refuse."""
    shape = known.weights.get(operand(node, 1), ())
    told = attributes(node)
    if node.op_type != "Conv" or node.domain or len(shape) != _SERIES:
        return None
    if shape[1] != 1 or told.get("group", 1) != shape[0]:
        return None
    plain = {"strides": [1], "dilations": [1], "auto_pad": b"NOTSET"}
    begin, end = told.get("pads", [0, 0])
    if min(begin, end) < 0 or any(told.get(key, value) != value for key, value in plain.items()):
        return None
    found = _Span(shape[0], shape[2], begin, end)
    fits = found.margin >= 0 or node.input[0] in known.lengths
    return found if fits and found.taps >= _LEAST and found.held <= _LARGEST else None


def _written(node: onnx.NodeProto, span: _Span, taken: set[str]) -> list[onnx.NodeProto]:
    """x [N, C, L] as [N, C B, L / B], convolved, and [N, C, L + margin] again."""
    write, x = Replacement(node, taken), node.input[0]
    length = write.op("Shape", [x], "length", start=2, end=3)
    size = write.held("block", [_BLOCK])
    short = write.op("Mod", [write.op("Neg", [length], "less"), size], "short")
    pads = write.op("Concat", [write.held("none", [0] * 5), short], "pads", axis=0)
    whole = write.op("Pad", [x, pads], "whole")
    cut = write.op("Reshape", [whole, write.held("cut_as", [0, 0, -1, _BLOCK])], "cut")
    turned = write.op("Transpose", [cut], "turned", perm=[0, 1, 3, 2])
    series = write.op("Reshape", [turned, write.held("blocks_as", [0, span.channels * _BLOCK, -1])], "blocks")
    told = {"group": span.channels, "kernel_shape": [span.count], "pads": [-span.first, span.behind]}
    convolved = write.op("Conv", [series, *_weights(write, node, span)], "convolved", **told)
    split = write.op("Reshape", [convolved, write.held("split_as", [0, span.channels, _BLOCK, -1])], "split")
    back = write.op("Transpose", [split], "back", perm=[0, 1, 3, 2])
    joined = write.op("Reshape", [back, write.held("joined_as", [0, span.channels, -1])], "joined")
    end = write.op("Add", [length, write.held("margin", [span.margin])], "end")
    write.op("Slice", [joined, write.held("start", [0]), end, write.held("axis", [2])], "output")
    return write.nodes(named=convolved)


def _weights(write: Replacement, node: onnx.NodeProto, span: _Span) -> list[str]:
    """Weights [C B, B, blocks], whose tap from place i to place o of a block b on is that of b B + i - o, and bias."""
    lowest = span.first * _BLOCK + span.begin - _BLOCK + 1
    highest = span.last * _BLOCK + span.begin + _BLOCK - 1
    around = write.held("around", [0, 0, -lowest, 0, 0, highest - span.taps + 1])
    taps = write.op("Pad", [node.input[1], around], "taps")
    places = write.held("output_place", _BLOCK - 1 - np.arange(_BLOCK).reshape(-1, 1, 1))
    places = write.op("Add", [places, write.held("input_place", np.arange(_BLOCK).reshape(1, -1, 1))], "places")
    places = write.op("Add", [places, write.held("block_place", _BLOCK * np.arange(span.count))], "all_places")
    matrices = write.op("Gather", [taps, places], "matrices", axis=2)
    weights = [write.op("Reshape", [matrices, write.held("weight_as", [-1, _BLOCK, span.count])], "weight")]
    if bias := operand(node, _BIAS):
        column = write.op("Reshape", [bias, write.held("column_as", [-1, 1])], "column")
        spread = write.op("Expand", [column, write.held("spread_as", [span.channels, _BLOCK])], "spread")
        weights.append(write.op("Reshape", [spread, write.held("bias_as", [-1])], "bias"))
    return weights
