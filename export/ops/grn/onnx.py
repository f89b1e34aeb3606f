"""Global response norm as `compress/convs/unireplknet.py` is exported, its bias with the next layer's."""

from __future__ import annotations

import numpy as np
import onnx

from convkit.export.kernels import Taken
from convkit.export.pattern import Network, P

_RESPONSE = P("Sqrt", P("ReduceSum", P("Mul", "x", "x"), "$places"), called="response")
_MEAN = P("Add", P("ReduceMean", "response", "$channels"), "$eps")
_GRN = P("Mul", "x", P("Add", P("Mul", "$gamma", P("Div", _RESPONSE, _MEAN)), "$one"))


def _found(network: Network, node: onnx.NodeProto) -> Taken | None:
    match = network.find(node, _GRN)
    held = {} if match is None else {name: network.constant(tensor) for name, tensor in match.bound.items()}
    gamma, eps = held.get("$gamma"), held.get("$eps")
    if match is None or gamma is None or eps is None:
        return None
    if network.shape(match.bound["x"])[1:2] != (gamma.size,):
        return None  # one for all channels, which the kernel does not read so
    return Taken(match.nodes, [match.bound["x"], gamma.reshape(-1)], {"eps": float(np.ravel(eps)[0])})


PART = _found
