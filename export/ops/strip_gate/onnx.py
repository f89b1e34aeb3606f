"""ELA as `compress/convs/ela.py` is exported."""

from __future__ import annotations

import onnx

from convkit.export.kernels import Taken
from convkit.export.pattern import Network, P, Pattern, attributes


def _gate(pooled: str, behind: str) -> Pattern:
    made = P("Conv", P("ReduceMean", "x", pooled), "$weight")
    return P("Unsqueeze", P("Sigmoid", P("GroupNormalization", made, "$scale", "$bias")), behind)


_EPSILON = 1e-5
"""ONNX's, where a file does not say."""
_ELA = P("Mul", P("Mul", "x", _gate("$across", "$3")), _gate("$down", "$2"))


def _found(network: Network, node: onnx.NodeProto) -> Taken | None:
    match = network.find(node, _ELA)
    held = {} if match is None else {name: network.constant(tensor) for name, tensor in match.bound.items()}
    weight, scale, bias = (held.get(name) for name in ("$weight", "$scale", "$bias"))
    if match is None or weight is None or scale is None or bias is None or weight.shape[2] % 2 == 0:
        return None
    norm = next(attributes(each) for each in match.nodes if each.op_type == "GroupNormalization")
    told = {"norms": int(norm["num_groups"]), "eps": float(norm.get("epsilon", _EPSILON))}
    return Taken(match.nodes, [match.bound["x"], weight, scale, bias], told)


PART = _found
