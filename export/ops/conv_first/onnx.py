"""The ConvFirst block: a grouped convolution of width 8, 1x1, SiLU, 1x1, and what was read added."""

from __future__ import annotations

import numpy as np
import onnx

from convkit.export.kernels import Taken
from convkit.export.pattern import Network, P, attributes

_HIDDEN = P("Conv", P("Conv", "x", "$grouped", "$first", called="mixed"), "$wide", "$wide_bias", called="hidden")
_BLOCK = P("Add", "x", P("Conv", P("Mul", _HIDDEN, P("Sigmoid", "hidden")), "$narrow", "$bias", called="made"))
_MOST = 128
"""Channels: of more, a program cannot hold the sums."""


def _found(network: Network, node: onnx.NodeProto) -> Taken | None:
    match = network.find(node, _BLOCK)
    if match is None:
        return None
    held = {name[1:]: network.constant(tensor) for name, tensor in match.bound.items() if name[0] == "$"}
    known = {name: array for name, array in held.items() if array is not None and array.dtype == np.float32}
    made = {name: network.maker(match.bound[name]) for name in ("mixed", "hidden", "made")}
    if len(known) < len(held) or not all(made.values()):
        return None
    grouped, wide, narrow = known["grouped"], known["wide"], known["narrow"]
    channels = len(grouped)
    plain = grouped.ndim == 4 and grouped.shape[1] == 8 and grouped.shape[2] == grouped.shape[3]  # noqa: PLR2004 - images
    square = wide.shape[1:] == (channels, 1, 1) and narrow.shape == (channels, len(wide), 1, 1)
    if not (plain and square) or channels > _MOST or len(wide) % channels:
        return None
    side = grouped.shape[2]
    told = {name: attributes(each) for name, each in made.items() if each is not None}
    strides = all(each.get("strides", [1, 1]) == [1, 1] for each in told.values())
    dilations = all(each.get("dilations", [1, 1]) == [1, 1] for each in told.values())
    same = told["mixed"].get("pads", [0, 0, 0, 0]) == [side // 2] * 4 and side % 2
    padded = any(any(told[name].get("pads", [0])) for name in ("hidden", "made"))
    if not (strides and dilations and same) or padded or told["mixed"].get("group", 1) * 8 != channels:
        return None
    kind, *others = (network.dtype(match.bound[name]) for name in ("$grouped", "$wide", "$narrow"))
    if any(other != kind for other in others):
        return None  # the kernel multiplies in one type
    kinds = dict.fromkeys(("grouped", "first_bias", "wide", "wide_bias", "narrow", "bias"), kind)
    return Taken(match.nodes, [match.bound["x"], *_packed(known)], kinds=kinds)


PART = _found


def _packed(known: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Weights and biases as the kernel reads them."""
    import torch

    from convkit.export.ops.conv_first.kernel import packed

    weights = [torch.from_numpy(np.array(known[name])) for name in ("grouped", "wide", "narrow")]
    pairs, up, back = packed(weights[0], weights[1][:, :, 0, 0], weights[2][:, :, 0, 0])
    wide_bias = np.zeros(len(up), np.float32)
    wide_bias[: len(known["wide_bias"])] = known["wide_bias"]
    return [pairs.numpy(), known["first"], up.numpy(), wide_bias, back.numpy(), known["bias"]]
