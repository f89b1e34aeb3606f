"""Large depthwise convolutions, and channels that part, run through depthwise convolutions of their own, and join."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from convkit.export.kernels import Taken
from convkit.export.pattern import Network, attributes, operand

_LEAST = 25
"""Taps; for smaller kernels engines have their own."""
_IMAGES, _BIAS = 4, 2
_KINDS = {"taps": "int32"}
Taps = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Places [C, T, 2], weights [C, T] and bias [C]."""


def _found(network: Network, node: onnx.NodeProto) -> Taken | None:
    if node.op_type == "Concat":
        return _joined(network, node)
    taps = _of_conv(network, node)
    if taps is None or taps[1].shape[1] < _LEAST:
        return None
    return Taken([node], [node.input[0], *taps], _sizes(network, node), _KINDS)


PART = _found


def _joined(network: Network, node: onnx.NodeProto) -> Taken | None:
    """A Concat of what one Split makes, each as it is or through a convolution that keeps the size."""
    nodes, parts, sources = [node], list[Taps](), list[str]()
    if attributes(node).get("axis") != 1:
        return None
    for name in node.input:
        maker = network.maker(name)
        taps = _of_conv(network, maker) if maker is not None else None
        if maker is not None and taps is not None and _keeps(network, maker):
            nodes.append(maker)
            name = maker.input[0]  # noqa: PLW2901 - what the part is of
        channels = network.shape(name)[1:2]
        if not channels:
            return None
        parts.append(taps or _as_it_is(channels[0]))
        sources.append(name)
    split = network.maker(sources[0])
    if split is None or split.op_type != "Split" or list(split.output) != sources or len(nodes) == 1:
        return None
    if attributes(split).get("axis") != 1:
        return None
    return Taken([*nodes, split], [split.input[0], *_together(parts)], {"strides": (1, 1), "margins": (-1, -1)}, _KINDS)


def _of_conv(network: Network, node: onnx.NodeProto) -> Taps | None:
    """The taps of a depthwise convolution of images whose weight is known; those that are nothing are none."""
    if node.op_type != "Conv":
        return None
    weight = network.constant(node.input[1])
    bias = network.constant(operand(node, _BIAS))
    told = attributes(node)
    if weight is None or weight.ndim != _IMAGES or weight.shape[1] != 1 or weight.dtype != np.float32:
        return None
    if told.get("group", 1) != len(weight) or told.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    if network.shape(node.input[0])[1:2] != weight.shape[:1]:
        return None
    pads, dilations = told.get("pads", [0, 0, 0, 0]), told.get("dilations", [1, 1])
    rows, columns = np.indices(weight.shape[2:])
    grid = np.stack((rows * dilations[0] - pads[0], columns * dilations[1] - pads[1]), -1).reshape(-1, 2)
    flat = weight.reshape(len(weight), -1)
    lists = [np.flatnonzero(own) for own in flat]
    count = max(1, *map(len, lists))
    places, weights = np.zeros((len(flat), count, 2), np.int32), np.zeros((len(flat), count), np.float32)
    for channel, own in enumerate(lists):
        places[channel, : len(own)], weights[channel, : len(own)] = grid[own], flat[channel, own]
    return places, weights, np.zeros(len(flat), np.float32) if bias is None else bias


def _sizes(network: Network, node: onnx.NodeProto) -> dict[str, tuple[int, ...]]:
    told, kernel = attributes(node), network.shape(node.input[1])[2:] or network.tensor(node.input[1]).dims[2:]
    pads, dilations = told.get("pads", [0, 0, 0, 0]), told.get("dilations", [1, 1])
    margins = [pads[axis] + pads[axis + 2] - dilations[axis] * (kernel[axis] - 1) - 1 for axis in (0, 1)]
    return {"strides": tuple(told.get("strides", [1, 1])), "margins": tuple(margins)}


def _keeps(network: Network, node: onnx.NodeProto) -> bool:
    return _sizes(network, node) == {"strides": (1, 1), "margins": (-1, -1)}


def _as_it_is(channels: int) -> Taps:
    return np.zeros((channels, 1, 2), np.int32), np.ones((channels, 1), np.float32), np.zeros(channels, np.float32)


def _together(parts: Sequence[Taps]) -> Taps:
    """One list of taps for the channels of all parts; shorter ones end in taps of no weight."""
    count = max(weights.shape[1] for _, weights, _ in parts)
    places = [np.pad(each, ((0, 0), (0, count - each.shape[1]), (0, 0))) for each, _, _ in parts]
    weights = [np.pad(each, ((0, 0), (0, count - each.shape[1]))) for _, each, _ in parts]
    return np.concatenate(places), np.concatenate(weights), np.concatenate([bias for _, _, bias in parts])
