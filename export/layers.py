"""How each kind of layer is written: one function a kind, all in standard operators."""

from collections.abc import Sequence

import torch
from torch import nn

from convkit.export.graph import GraphWriter

Pads = Sequence[int]
"""Extra zeros around the spatial dimensions, ONNX order: all begins, then all ends."""

_MATRIX = 2
_Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
_ConvTranspose = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
_BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


def write_layer(graph: GraphWriter, layer: nn.Module, name: str, x: str, y: str, pads: Pads, rank: int) -> None:
    """Write `layer`; `rank` is the number of dimensions of its input."""
    if isinstance(layer, _Conv):
        _conv(graph, layer, name, x, y, pads)
    elif isinstance(layer, _ConvTranspose):
        _conv_transpose(graph, layer, name, x, y)
    elif isinstance(layer, nn.Linear):
        (_gemm if rank == _MATRIX else _matmul)(graph, layer, name, x, y)
    elif isinstance(layer, _BatchNorm):
        _batch_norm(graph, layer, name, x, y)
    else:
        raise TypeError(f"layer {name!r} is a {type(layer).__name__}, which no Model holds")


def conv_pads(layer: _Conv, extra: Pads = ()) -> list[int]:
    """ONNX pads of `layer`, with `extra` added."""
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        pads = [total // 2 for total in totals] + [total - total // 2 for total in totals]
    elif layer.padding == "valid":
        pads = [0] * (2 * len(layer.kernel_size))
    else:
        pads = [int(p) for p in layer.padding] * 2
    return [own + more for own, more in zip(pads, extra, strict=True)] if extra else pads


def _conv(graph: GraphWriter, layer: _Conv, name: str, x: str, y: str, pads: Pads) -> None:
    if layer.padding_mode != "zeros":
        raise TypeError(f"layer {name!r} pads with {layer.padding_mode!r}; a Model holds a Pad node before it instead")
    inputs = [x, graph.initializer(f"{name}.weight", layer.weight), _bias(graph, layer, name)]
    graph.node(
        "Conv",
        name,
        inputs,
        [y],
        kernel_shape=layer.kernel_size,
        strides=layer.stride,
        dilations=layer.dilation,
        group=layer.groups,
        pads=conv_pads(layer, pads),
    )


def _conv_transpose(graph: GraphWriter, layer: _ConvTranspose, name: str, x: str, y: str) -> None:
    inputs = [x, graph.initializer(f"{name}.weight", layer.weight), _bias(graph, layer, name)]
    graph.node(
        "ConvTranspose",
        name,
        inputs,
        [y],
        kernel_shape=layer.kernel_size,
        strides=layer.stride,
        dilations=layer.dilation,
        group=layer.groups,
        pads=[int(p) for p in layer.padding] * 2,
        output_padding=layer.output_padding,
    )


def _gemm(graph: GraphWriter, layer: nn.Linear, name: str, x: str, y: str) -> None:
    inputs = [x, graph.initializer(f"{name}.weight", layer.weight), _bias(graph, layer, name)]
    graph.node("Gemm", name, inputs, [y], transB=1)


def _matmul(graph: GraphWriter, layer: nn.Linear, name: str, x: str, y: str) -> None:
    """Gemm takes matrices only; MatMul wants the weight as [in, out]."""
    weight = graph.initializer(f"{name}.weight", layer.weight, transposed=True)
    if layer.bias is None:
        graph.node("MatMul", name, [x, weight], [y])
        return
    product = graph.value_name(f"{y}.matmul")
    graph.node("MatMul", name, [x, weight], [product])
    graph.node("Add", f"{name}.bias", [product, _bias(graph, layer, name)], [y])


def _batch_norm(graph: GraphWriter, layer: _BatchNorm, name: str, x: str, y: str) -> None:
    mean, variance = layer.running_mean, layer.running_var
    if mean is None or variance is None:
        raise TypeError(f"layer {name!r} has no running statistics; a Model is in evaluation mode")
    scale = layer.weight if layer.affine else torch.ones_like(variance)
    shift = layer.bias if layer.affine else torch.zeros_like(mean)
    parameters = {"weight": scale, "bias": shift, "running_mean": mean, "running_var": variance}
    names = [graph.initializer(f"{name}.{key}", tensor) for key, tensor in parameters.items()]
    graph.node("BatchNormalization", name, [x, *names], [y], epsilon=layer.eps)


def _bias(graph: GraphWriter, layer: _Conv | _ConvTranspose | nn.Linear, name: str) -> str:
    return "" if layer.bias is None else graph.initializer(f"{name}.bias", layer.bias)
