"""Bias correction: what rounding adds to a layer's mean output on calibration data is taken off its bias.

E[y] of every channel is compared between the float and the quantized network, layer by layer in execution order, so
that each correction already sees those before it (data-driven bias correction, Nagel et al. 2019, eq. 15).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx

from convkit.compress import graph as graphs
from convkit.compress.method import Batches, Method

_WITH_BIAS = ("Conv", "Gemm")
_KNOWN: WeakKeyDictionary[fx.GraphModule, tuple[Batches, dict[str, Tensor]]] = WeakKeyDictionary()
"""Means of float networks that live, and the samples they are of: a search corrects dozens of networks by one."""


def correct(graph: fx.GraphModule, exact: fx.GraphModule, inputs: tuple[str, ...], samples: Batches) -> fx.GraphModule:
    """`graph`, quantized, with biases moved so that channel means agree with `exact` on `samples`."""
    arguments = [tuple(batch[name] for name in inputs) for batch in samples]
    with torch.no_grad():
        if exact not in _KNOWN or _KNOWN[exact][0] is not samples:
            _KNOWN[exact] = samples, _channel_means(exact, arguments)
        means = _KNOWN[exact][1]
        run_together(graph, arguments, lambda node, results: _corrected(node, results, means))
    return graph


def _channel_means(exact: fx.GraphModule, arguments: list[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    means: dict[str, Tensor] = {}

    def note(node: fx.Node, results: list[Any]) -> list[Any]:
        if node.op == "call_module":
            means[graphs.key(node)] = _mean(results)
        return results

    run_together(exact, arguments, note)
    return means


def run_together(
    graph: fx.GraphModule, arguments: list[tuple[Tensor, ...]], change: Callable[[fx.Node, list[Any]], list[Any]]
) -> None:
    """Run `graph` on batches in step: `change` sees a node's values on all of them, and may replace them."""
    runs = [fx.Interpreter(graph) for _ in arguments]
    for run, batch in zip(runs, arguments, strict=True):
        run.args_iter = iter(batch)
    for node in graph.graph.nodes:
        values = change(node, [run.run_node(node) for run in runs])
        for run, value in zip(runs, values, strict=True):
            run.env[node] = value
            for done in run.user_to_last_uses.get(node, []):
                del run.env[done]


def _mean(results: list[Tensor]) -> Tensor:
    """Mean of each channel (axis 1) over all batches."""
    each = [r.double().mean([axis for axis in range(r.ndim) if axis != 1]) * len(r) for r in results]
    return torch.stack(each).sum(0) / sum(len(result) for result in results)


def _corrected(node: fx.Node, results: list[Any], means: dict[str, Tensor]) -> list[Any]:
    """The values of a quantized layer with its bias moved to the wanted means; others as they are."""
    found, wanted = _bias(node), means.get(node.meta.get("layer", ""))
    if found is None or wanted is None:
        return results
    held, scale = found
    moved = wanted - _mean(results)
    if scale is None:
        held += moved.to(held.dtype)
    else:
        codes = torch.round(moved / scale.double())
        held += codes.to(held.dtype)
        moved = codes * scale
    return [r + moved.to(r.dtype).reshape(1, -1, *[1] * (r.ndim - 2)) for r in results]


def _bias(node: fx.Node) -> tuple[Tensor, Tensor | None] | None:
    """The bias of a quantized layer, to be edited in place: its codes and their scale, or float numbers and None."""
    if graphs.operator(node) not in _WITH_BIAS or graphs.module(node) is not None or len(node.args) < 3:  # noqa: PLR2004 - x, w, b
        return None
    bias = node.args[2]
    numbers = graphs.constant(bias)
    if numbers is not None:
        return numbers, None
    if not isinstance(bias, fx.Node) or graphs.operator(bias) != "DequantizeLinear":
        return None
    codes, scale = (graphs.constant(argument) for argument in bias.args[:2])
    return None if codes is None or scale is None else (codes, scale)


PART = Method(change=correct, before=False, exact=False)
