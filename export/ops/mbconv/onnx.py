"""The MBConv block: 1x1, SiLU, a grouped convolution of width 8, SiLU, 1x1, and what was read added."""

from __future__ import annotations

import numpy as np
import onnx

from convkit.export.inverted import block
from convkit.export.kernels import Taken
from convkit.export.pattern import Network, P

_HIDDEN = P("Conv", "x", "$wide", "$wide_bias", called="hidden")
_MIXED = P("Conv", P("Mul", _HIDDEN, P("Sigmoid", "hidden")), "$grouped", "$grouped_bias", called="mixed")
_BLOCK = P("Add", "x", P("Conv", P("Mul", _MIXED, P("Sigmoid", "mixed")), "$narrow", "$bias", called="made"))
_NAMES = ("wide", "wide_bias", "grouped", "grouped_bias", "narrow", "bias")


def _found(network: Network, node: onnx.NodeProto) -> Taken | None:
    match = network.find(node, _BLOCK)
    found = match and block(network, match, ("mixed", "hidden", "made"))
    if not match or not found or len(found.constants["grouped"]) != len(found.constants["wide"]):
        return None
    return Taken(match.nodes, [match.bound["x"], *_packed(found.constants)], kinds=dict.fromkeys(_NAMES, found.kind))


PART = _found


def _packed(known: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Weights and biases as the kernel reads them."""
    import torch

    from convkit.export.ops.mbconv.kernel import packed

    wide, grouped, narrow = (torch.from_numpy(np.array(known[name])) for name in ("wide", "grouped", "narrow"))
    up, paired, back = packed(wide[:, :, 0, 0], grouped, narrow[:, :, 0, 0])
    more = (0, len(up) - len(wide))
    wide_bias, grouped_bias = (np.pad(known[name], more) for name in ("wide_bias", "grouped_bias"))
    return [up.numpy(), wide_bias, paired.numpy(), grouped_bias, back.numpy(), known["bias"]]
