"""Channels of a convolution rescaled: what it reads comes divided, what it makes leaves divided."""

from __future__ import annotations

from torch import Tensor, nn

Conv = nn.modules.conv._ConvNd  # noqa: SLF001 - torch's only common class of 1-D to 3-D, transposed ones as well
MOST = 64.0
"""Scales stay within [1/64, 64]: a channel that is dead, or hardly shown by samples, must not blow up its neighbour."""


def rescale(layer: Conv, read: Tensor | None = None, made: Tensor | None = None) -> None:
    """`layer` for an input whose channels were divided by `read` [in_channels], its output's divided by `made`
    [out_channels]; None leaves a side as it is. It gets new parameters, for other layers may hold the old ones too.
    """
    weight = layer.weight.reshape(layer.groups, -1, *layer.weight.shape[1:])
    flat = [1] * (layer.weight.ndim - 2)
    # A transposed convolution's weight is [in, out / groups, …], any other's [out, in / groups, …].
    reads, makes = ((layer.groups, -1, 1), (layer.groups, 1, -1))[:: 1 if layer.transposed else -1]
    if read is not None:
        weight = weight * read.reshape(*reads, *flat)
    if made is not None:
        weight = weight / made.reshape(*makes, *flat)
    layer.weight = nn.Parameter(weight.reshape(layer.weight.shape))
    if made is not None and layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias / made)
