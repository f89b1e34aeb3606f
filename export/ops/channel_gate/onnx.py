"""ECA as `compress/convs/eca.py` is exported."""

from __future__ import annotations

import onnx

from convkit.export.kernels import Taken
from convkit.export.pattern import Network, P

_POOLED = P("Unsqueeze", P("Flatten", P("GlobalAveragePool", "x")), "$axis")
_GATE = P("Sigmoid", P("Conv", _POOLED, "$weight"))
_ECA = P("Mul", "x", P("Reshape", P("Squeeze", _GATE)))


def _found(network: Network, node: onnx.NodeProto) -> Taken | None:
    match = network.find(node, _ECA)
    weight = None if match is None else network.constant(match.bound["$weight"])
    if match is None or weight is None or weight.size % 2 == 0:
        return None
    return Taken(match.nodes, [match.bound["x"], weight.reshape(-1)])


PART = _found
