"""Batch normalization folded into the convolution or linear layer before it, exactly.

y = gamma (w*x + b - mean) / sqrt(var + eps) + beta  =  (w s)*x + (b - mean) s + beta,  s = gamma / sqrt(var + eps)
per output channel. A norm with no layer to fold into becomes a depthwise 1x1 convolution's worth of Mul and Add only
where an engine does so itself; it is left as it is.
"""

import torch
from torch import fx, nn

from convkit.compress import graph as graphs
from convkit.compress.method import Method


def fold(graph: fx.GraphModule) -> fx.GraphModule:
    """`graph` without the batch norms that follow a Conv, ConvTranspose or Linear that nothing else reads."""
    for node in list(graphs.computes(graph)):
        norm = graphs.module(node)
        producer = node.args[0]
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or not isinstance(producer, fx.Node):  # noqa: SLF001
            continue
        layer = graphs.module(producer)
        if not isinstance(layer, nn.modules.conv._ConvNd | nn.Linear):  # noqa: SLF001 - torch's only common class
            continue
        if graphs.sole_user(producer) is not node or _is_sequence(producer):
            continue
        _fold_into(layer, norm)
        graphs.bypass(node, producer)
    graph.recompile()
    return graph


def _is_sequence(node: fx.Node) -> bool:
    """Whether a Linear runs over more than a batch: the norm's channels, axis 1, are then not the Linear's outputs."""
    return graphs.operator(node) == "MatMul"


@torch.no_grad()
def _fold_into(layer: nn.modules.conv._ConvNd | nn.Linear, norm: nn.modules.batchnorm._BatchNorm) -> None:
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None  # a loaded norm is in evaluation mode  # noqa: S101
    assert variance is not None  # noqa: S101
    # In double: the product of three float32 roundings would otherwise show in the last bits of every layer.
    scale = (variance.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    if layer.bias is not None:
        shift = shift + layer.bias.double() * scale
    layer.weight = nn.Parameter(_scaled(layer, scale).to(layer.weight.dtype))
    layer.bias = nn.Parameter(shift.to(layer.weight.dtype))


def _scaled(layer: nn.modules.conv._ConvNd | nn.Linear, scale: torch.Tensor) -> torch.Tensor:
    """The layer's weight times `scale` per output channel; transposed kernels are [in, out / groups, ...]."""
    weight = layer.weight.double()
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):  # noqa: SLF001
        inputs, outputs = weight.shape[0] // layer.groups, weight.shape[1]
        per_group = scale.reshape(layer.groups, 1, outputs).expand(-1, inputs, -1)
        return weight * per_group.reshape(weight.shape[0], outputs, *[1] * (weight.ndim - 2))
    return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))


PART = Method(change=fold)
