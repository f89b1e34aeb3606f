"""A layer norm, a product and a sum with what each sample has of its own."""

from __future__ import annotations

import numpy as np
import onnx

from convkit.export.kernels import Taken
from convkit.export.pattern import Network, P, attributes

_NORM = P("Add", P("Mul", P("LayerNormalization", "x", "$one", called="normed"), "weight"), "bias")


def _found(network: Network, node: onnx.NodeProto) -> Taken | None:
    match = network.find(node, _NORM)
    if match is None:
        return None
    bound = match.bound
    norm = next(each for each in match.nodes if each.output[0] == bound["normed"])
    scale = network.constant(bound["$one"])
    if scale is None or len(norm.input) > 2 or not np.array_equal(scale, np.ones_like(scale)):  # noqa: PLR2004 - x, scale
        return None
    told, shape = attributes(norm), network.shape(bound["x"])
    own = [network.shape(bound[name]) for name in ("weight", "bias")]
    beside = (shape[0], *[1] * (len(shape) - 2), shape[-1]) if shape else ()
    if told.get("axis", -1) not in (-1, len(shape) - 1) or any(each != beside for each in own) or not beside:
        return None
    if any(network.is_constant(bound[name]) for name in ("weight", "bias")):
        return None
    return Taken(match.nodes, [bound[name] for name in ("x", "weight", "bias")], {"eps": told.get("epsilon", 1e-5)})


PART = _found
