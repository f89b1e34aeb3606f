"""A transposed convolution written as a convolution and a pixel shuffle, exactly: engines run that in low precision.

With stride s, blocks of s x s results read the same few inputs, each result with taps of its own: they are s x s groups
of channels of one convolution, whose order becomes that of pixels (Shi et al. 2016, https://arxiv.org/abs/1609.07009).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from convkit.compress import graph as graphs
from convkit.compress import ops
from convkit.compress.method import Method

_MOST = 2.0
"""Multiplications with padded kernels, over those of the transposed convolution."""
_ELEMENTWISE = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "Elu", "HardSigmoid", "HardSwish")
"""Activations that may come before the pixels are moved, where the convolution can run them inside its kernel."""


def sub_pixel(graph: fx.GraphModule) -> fx.GraphModule:
    """`graph` with 2-D transposed convolutions as sub-pixel ones, where that costs few multiplications more."""
    for node in list(graphs.computes(graph)):
        layer = graphs.module(node)
        if not isinstance(layer, nn.ConvTranspose2d):
            continue
        axes = _axes(layer)
        if axes is not None:
            _rewrite(graph, node, layer, axes)
    graph.recompile()
    return graph


@dataclass(frozen=True, slots=True)
class _Axis:
    """How one axis is cut into blocks of `stride` results, block q from position q * stride - lead on.

    Its results read inputs q + first to q + first + taps - 1, with the kernel's weights from `origin` on.
    """

    kernel: int
    stride: int
    first: int
    taps: int
    origin: int
    begin: int
    end: int
    lead: int
    tail: int
    """Results to cut off the first and the last block."""

    def weights(self, phase: int) -> list[int]:
        """Kernel position that each tap of a block's result number `phase` has; outside the kernel it is zero."""
        return [self.origin + phase - (self.first + tap) * self.stride for tap in range(self.taps)]


def _axes(layer: nn.ConvTranspose2d) -> list[_Axis] | None:
    """Both axes, None where the layer has no such form, or a costly one."""
    height, width = layer.stride
    if height * width == 1 or layer.groups != 1 or layer.dilation != (1, 1):
        return None
    (above, left), (below, right) = (int(pad) for pad in layer.padding), layer.output_padding
    rows, columns = layer.kernel_size
    axes = [_axis(rows, height, above, below), _axis(columns, width, left, right)]
    cost = 1.0
    for axis in axes:
        cost *= axis.taps * axis.stride / axis.kernel
    return axes if cost <= _MOST and all(min(axis.begin, axis.end) >= 0 for axis in axes) else None


def _axis(kernel: int, stride: int, padding: int, extra: int) -> _Axis:
    """Blocks that begin with the first result where that takes no more taps, else those that take fewest."""
    leads = sorted({0, padding % stride}, key=lambda lead: (_reach(kernel, stride, padding - lead)[1], lead))
    lead = leads[0]
    first, taps = _reach(kernel, stride, padding - lead)
    length = lead + kernel - 2 * padding + extra
    blocks = -(-length // stride)
    return _Axis(
        kernel,
        stride,
        first,
        taps,
        origin=padding - lead,
        begin=-first,
        end=first + taps - 2 + blocks,
        lead=lead,
        tail=blocks * stride - length,
    )


def _reach(kernel: int, stride: int, origin: int) -> tuple[int, int]:
    """First input, relative to its number, that a block reads, and how many it reads."""
    first = -((kernel - 1 - origin) // stride)
    return first, (stride - 1 + origin) // stride - first + 1


def _rewrite(graph: fx.GraphModule, node: fx.Node, layer: nn.ConvTranspose2d, axes: list[_Axis]) -> None:
    last = _behind_activations(node)
    name, users = graphs.value(last), list(last.users)
    graph.set_submodule(str(node.target), _conv(layer, axes))
    _pad(graph, node, axes)
    last.meta["value"] = f"{name}_phases"
    pixels = _shuffle(graph, last, name, layer.out_channels, axes)
    made = _crop(graph, pixels, axes)
    for user in users:
        user.replace_input_with(last, made)


def _shuffle(graph: fx.GraphModule, source: fx.Node, name: str, channels: int, axes: list[_Axis]) -> fx.Node:
    """DepthToSpace in mode DCR with channels last, as 8-bit kernels keep them, of whatever size the image is.

    A row of blocks is then rows of pixels whose runs only change places; the operator itself moves single
    numbers with channels first. Engines cancel the outer two Transpose against their own.
    """
    rows, run = axes[0].stride, axes[1].stride * channels
    steps: tuple[tuple[str, list[int]], ...] = (
        ("Transpose", [0, 2, 3, 1]),
        ("Reshape", [0, 0, 0, rows, run]),
        ("Transpose", [0, 1, 3, 2, 4]),  # [N, H, s, W, s * C]
        ("Reshape", [0, -1, 1, 0, run]),  # the 1 keeps W where a 0 finds it
        ("Reshape", [0, 0, -1, channels]),  # [N, H * s, W * s, C]
        ("Transpose", [0, 3, 1, 2]),
    )
    made = source
    for number, (operator, sizes) in enumerate(steps):
        step, function = f"{name}_shuffle{number}", ops.function(operator)
        if operator == "Transpose":
            made = graphs.call(made, function, (made,), step, perm=sizes)
        else:
            stored = graphs.store(graph, source, f"{step}_shape", torch.tensor(sizes))
            made = graphs.call(made, function, (made, stored), step)
    made.meta["value"] = name
    return made


def _behind_activations(node: fx.Node) -> fx.Node:
    reader = graphs.sole_user(node)
    return node if reader is None or graphs.operator(reader) not in _ELEMENTWISE else _behind_activations(reader)


@torch.no_grad()
def _conv(layer: nn.ConvTranspose2d, axes: list[_Axis]) -> nn.Conv2d:
    """The convolution whose channels are (phase, channel), phases row by row."""
    rows, columns = axes
    taps = [
        _taken(_taken(layer.weight, 2, rows.weights(y)), 3, columns.weights(x)).transpose(0, 1)
        for y in range(rows.stride)
        for x in range(columns.stride)
    ]
    weight = torch.cat(taps)
    conv = nn.Conv2d(
        weight.shape[1],
        weight.shape[0],
        (rows.taps, columns.taps),
        padding=0 if _is_uneven(axes) else (rows.begin, columns.begin),
        bias=layer.bias is not None,
        device="meta",
    )
    conv.weight = nn.Parameter(weight.contiguous())
    if layer.bias is not None:
        conv.bias = nn.Parameter(layer.bias.repeat(len(taps)))
    return conv.train(layer.training)


def _taken(weight: Tensor, axis: int, positions: list[int]) -> Tensor:
    """`weight` at `positions` along `axis`, zero at those it has not."""
    size = weight.shape[axis]
    found = weight.index_select(axis, torch.tensor([min(max(p, 0), size - 1) for p in positions]))
    inside = torch.tensor([0 <= p < size for p in positions])
    return found * inside.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])


def _is_uneven(axes: list[_Axis]) -> bool:
    return any(axis.begin != axis.end for axis in axes)


def _pad(graph: fx.GraphModule, node: fx.Node, axes: list[_Axis]) -> None:
    """Uneven padding, which torch's layer cannot hold; the exported convolution takes it in."""
    if not _is_uneven(axes):
        return
    source = node.args[0]
    assert isinstance(source, fx.Node)  # noqa: S101
    name = f"{graphs.value(node)}_padded"
    amounts = torch.tensor([0, 0, *(axis.begin for axis in axes), 0, 0, *(axis.end for axis in axes)])
    stored = graphs.store(graph, node, f"{name}_pads", amounts)
    padded = graphs.call(stored, ops.function("Pad"), (source, stored), name)
    node.replace_input_with(source, padded)


def _crop(graph: fx.GraphModule, pixels: fx.Node, axes: list[_Axis]) -> fx.Node:
    """A Slice of what the blocks have too much, where they have."""
    if not any(axis.lead or axis.tail for axis in axes):
        return pixels
    name = graphs.value(pixels)
    pixels.meta["value"] = f"{name}_whole"
    starts = torch.tensor([axis.lead for axis in axes])
    ends = torch.tensor([-axis.tail if axis.tail else torch.iinfo(torch.int64).max for axis in axes])
    stored = [
        graphs.store(graph, pixels, f"{name}_{role}", tensor)
        for role, tensor in (("starts", starts), ("ends", ends), ("axes", torch.tensor([2, 3])))
    ]
    return graphs.call(pixels, ops.function("Slice"), (pixels, *stored), name)


PART = Method(change=sub_pixel)
