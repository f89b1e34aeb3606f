"""EvoNorm B0 and S0 as `compress/convs/evonorm.py` is exported, and others that write them alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from convkit.export.kernels import Taken
from convkit.export.pattern import Network, P, Pattern

_LARGEST = 65504.0
"""In fp16: the kernel takes a variance, the nodes its root."""


def _variance(x: Pattern | str) -> Pattern:
    off = P("Sub", x, P("GlobalAveragePool", x if isinstance(x, str) else x.called), called="off")
    return P("GlobalAveragePool", P("Mul", off, "off"))


def _spread(variance: Pattern) -> Pattern:
    return P("Sqrt", P("Add", variance, "$eps"))


def _scaled(made: Pattern) -> Pattern:
    return P("Add", P("Mul", made, "$weight"), "$bias")


_B0 = _scaled(P("Div", "x", P("Max", "$known", P("Add", P("Mul", "x", "$v"), _spread(_variance("x"))))))
_GROUPED = _variance(P("Reshape", "x", "$groups", called="grouped"))
_GATED = P("Reshape", P("Mul", "x", P("Sigmoid", P("Mul", "x", "$v"))))
_S0 = [
    _scaled(P("Reshape", P("Div", _GATED, _spread(variance)))) for variance in (_GROUPED, P("Mul", _GROUPED, "$more"))
]


def _found(network: Network, node: onnx.NodeProto) -> Taken | None:
    match = network.find(node, _B0, *_S0)
    if match is None:
        return None
    held = {name: _flat(network, tensor) for name, tensor in match.bound.items() if name.startswith("$")}
    weight, bias, v = held["$weight"], held["$bias"], held["$v"]
    known = held.get("$known")
    sizes = {len(each) for each in (weight, bias, v, *([] if known is None else [known]))}
    if sizes != {*network.shape(match.bound["x"])[1:2]}:
        return None  # one for all channels, which the kernel does not read so
    if known is not None and network.dtype(match.bound["x"]) == "float16" and float((known**2).max()) > _LARGEST:
        return None
    attributes: dict[str, Any] = {"eps": float(held["$eps"][0]), "gated": int(known is None), "less": 0}
    attributes["groups"] = len(weight) if known is not None else int(held["$groups"][1])
    if "$more" in held:
        attributes["less"] = 1  # which the nodes' own factor must bear out
    variance = np.zeros_like(weight) if known is None else known**2 - np.float32(attributes["eps"])
    return Taken(match.nodes, [match.bound["x"], weight, bias, v, variance], attributes)


PART = _found


def _flat(network: Network, name: str) -> np.ndarray:
    held = network.constant(name)
    return np.zeros(0, np.float32) if held is None else held.reshape(-1)
