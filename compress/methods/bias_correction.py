"""Bias correction: what rounding adds to a layer's mean output on calibration data is taken off its bias.

E[y] of every channel is compared between the float and the quantized network, layer by layer in execution order, so
that each correction already sees those before it (data-driven bias correction, Nagel et al. 2019, eq. 15).
"""

from __future__ import annotations

from typing import Any

import torch
from convkit.compress import graph as graphs
from convkit.compress.calibration import Observer
from convkit.compress.method import Method, Samples
from torch import Tensor, fx

_WITH_BIAS = ("Conv", "Gemm")


def correct(graph: fx.GraphModule, exact: fx.GraphModule, inputs: tuple[str, ...], samples: Samples) -> fx.GraphModule:
    """`graph`, quantized, with the integer biases moved so that channel means agree with `exact` on `samples`."""
    arguments = [samples[name] for name in inputs]
    with torch.no_grad():
        means = _channel_means(exact, arguments)
        _Corrector(graph, means).run(*arguments)
    return graph


def _channel_means(exact: fx.GraphModule, arguments: list[Tensor]) -> dict[str, Tensor]:
    means: dict[str, Tensor] = {}

    def watch(node: fx.Node, tensor: Tensor, _: Any) -> None:  # noqa: ANN401 - the observer's view
        if node.op == "call_module":
            means[graphs.key(node)] = _mean(tensor)

    Observer(exact, watch).run(*arguments)
    return means


def _mean(tensor: Tensor) -> Tensor:
    """Mean of each channel (axis 1)."""
    return tensor.double().mean([axis for axis in range(tensor.ndim) if axis != 1])


class _Corrector(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule, means: dict[str, Tensor]) -> None:
        super().__init__(graph)
        self._means = means

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401 - fx's own signature
        """The node's value, corrected on the fly where it is a quantized layer with an integer bias."""
        result = super().run_node(n)
        bias = _integer_bias(n)
        wanted = self._means.get(n.meta.get("layer", ""))
        if bias is None or wanted is None:
            return result
        codes, scale = bias
        moved = torch.round((wanted - _mean(result)) / scale.double())
        codes += moved.to(codes.dtype)
        return result + (moved * scale).to(result.dtype).reshape(1, -1, *[1] * (result.ndim - 2))


def _integer_bias(node: fx.Node) -> tuple[Tensor, Tensor] | None:
    """The bias codes (to be edited in place) and scale of a quantized layer."""
    if graphs.operator(node) not in _WITH_BIAS or len(node.args) < 3 or not isinstance(node.args[2], fx.Node):  # noqa: PLR2004 - x, w, b
        return None
    bias = node.args[2]
    if graphs.operator(bias) != "DequantizeLinear":
        return None
    codes, scale = (graphs.constant(argument) for argument in bias.args[:2])
    return None if codes is None or scale is None else (codes, scale)


PART = Method(about="take the mean error of each channel off its bias", change=correct, before=False, exact=False)
