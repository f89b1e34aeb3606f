"""The ConvFirst block: a grouped convolution of width 8, 1x1, SiLU, 1x1, and what was read added."""

from __future__ import annotations

import numpy as np
import onnx

from convkit.export.inverted import block
from convkit.export.kernels import Taken
from convkit.export.pattern import Network, P

_HIDDEN = P("Conv", P("Conv", "x", "$grouped", "$first", called="mixed"), "$wide", "$wide_bias", called="hidden")
_BLOCK = P("Add", "x", P("Conv", P("Mul", _HIDDEN, P("Sigmoid", "hidden")), "$narrow", "$bias", called="made"))


def _found(network: Network, node: onnx.NodeProto) -> Taken | None:
    match = network.find(node, _BLOCK)
    found = match and block(network, match, ("mixed", "hidden", "made"))
    if not match or not found:
        return None
    known = found.constants
    if len(known["grouped"]) != len(known["narrow"]) or len(known["wide"]) % len(known["narrow"]):
        return None
    kinds = dict.fromkeys(("grouped", "first_bias", "wide", "wide_bias", "narrow", "bias"), found.kind)
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
