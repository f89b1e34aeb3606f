"""Deformable convolutions made easier for hardware, in a network that is then trained further.

CoDeNet (Huang et al., FPGA 2021), section 3: offsets within a bound, one offset that widens the whole kernel, whole
pixels, and channels that are mixed before they are moved. Each is exact where the network has it already, and else the
nearest of its kind, for training to begin from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from convkit.compress.convs.deform import DeformBlock
from convkit.compress.errors import ConvkitError

BOUND = 8.0
"""Pixels that an offset reaches at most: what a line buffer of the paper's holds."""
_TAPS = 9
_PLAIN = ((3, 3), (1, 1), (1, 1), 1, 1)
"""Kernel, stride, dilation, groups and groups of offsets of a block that may be square or depthwise."""


def codesigned(module: nn.Module, *kinds: str) -> nn.Module:
    """`module` with its DeformBlocks changed in place, in this order: bound, square, round, depthwise.

    Raises ConvkitError for a kind that there is not, and where the network has no such block, a modulated one is to be
    square, or one that is not plain, 3x3, is to be square or depthwise.
    """
    wrong = next((kind for kind in kinds if kind not in KINDS), None)
    if wrong is not None:
        raise ConvkitError(f"deformable convolutions are not made {wrong!r}", hint=f"there is: {', '.join(KINDS)}")
    blocks = [(name, one) for name, one in module.named_modules() if isinstance(one, DeformBlock)]
    if not blocks:
        raise ConvkitError("the network has no DeformBlock", hint="docs/convs.md says how to have one")
    for name, block in blocks:
        for kind in (kind for kind in KINDS if kind in kinds):
            KINDS[kind](block, name)
    return module


def _bound(block: DeformBlock, _name: str) -> None:
    block.bound = BOUND if block.bound is None else min(block.bound, BOUND)


def _round(block: DeformBlock, _name: str) -> None:
    block.rounded = True


def _square(block: DeformBlock, name: str) -> None:
    """The offset that comes nearest to those of all taps: their projection onto the corners of a square."""
    if block.square:
        return
    _check_plain(block, name)
    if block.offset.out_channels != 2 * _TAPS:
        raise ConvkitError(f"{name!r} is modulated: one offset leaves no mask", hint="leave out square")
    _bound(block, name)
    template = corners()
    with torch.no_grad():
        weight = torch.einsum("t,tchw->chw", template, block.offset.weight) / template.square().sum()
        bias = (template @ _bias(block.offset)) / template.square().sum()
    block.offset, block.square = _conv_of(weight[None], bias[None], block.offset), True


def _depthwise(block: DeformBlock, name: str) -> None:
    """Each output's kernel as the outer product that is nearest to it of one over channels and one over taps; offsets,
    which read other channels then, begin at nothing.
    """
    if block.pointwise is not None:
        return
    _check_plain(block, name)
    weight = block.conv.weight.detach()
    out, read = weight.shape[:2]
    u, s, v = torch.linalg.svd(weight.flatten(2), full_matrices=False)
    channels, taps = u[..., 0] * s[:, :1].sqrt(), v[:, 0] * s[:, :1].sqrt()
    made = DeformBlock(
        read, out, bound=block.bound, square=block.square, rounded=block.rounded, depthwise=True,
        modulated=block.offset.out_channels > 2 * _TAPS,
    )  # fmt: skip
    with torch.no_grad():
        made.pointwise.weight.copy_(channels[..., None, None])  # type: ignore[union-attr]
        made.pointwise.bias.zero_()  # type: ignore[union-attr]
        made.conv.weight.copy_(taps.reshape(out, 1, *weight.shape[2:]))
        made.offset.weight.zero_()
        made.offset.bias.zero_()  # type: ignore[union-attr]
        if made.conv.bias is not None and block.conv.bias is not None:
            made.conv.bias.copy_(block.conv.bias)
    block.pointwise, block.offset, block.conv = made.pointwise, made.offset, made.conv


def _check_plain(block: DeformBlock, name: str) -> None:
    conv, groups = block.conv, 1 if block.pointwise is not None else block.conv.groups
    found = tuple(conv.weight.shape[2:]), conv.stride, conv.dilation, groups, block.deform_groups
    if found != _PLAIN:
        raise ConvkitError(
            f"{name!r} is no 3x3 block whose stride, dilation and groups are 1",
            hint="make it bound or round, which all can be",
        )


def corners() -> Tensor:
    """Rows and columns by turns that the taps of a 3x3 kernel move by where it widens by one [18]."""
    steps = torch.tensor([-1.0, 0.0, 1.0])
    return torch.cartesian_prod(steps, steps).flatten()


def _bias(conv: nn.Conv2d) -> Tensor:
    return torch.zeros(conv.out_channels) if conv.bias is None else conv.bias


def _conv_of(weight: Tensor, bias: Tensor, like: nn.Conv2d) -> nn.Conv2d:
    made = nn.Conv2d(like.in_channels, len(weight), tuple(weight.shape[2:]), padding=like.padding)  # type: ignore[arg-type]
    with torch.no_grad():
        made.weight.copy_(weight)
        made.bias.copy_(bias)  # type: ignore[union-attr]
    return made


KINDS: Mapping[str, Callable[[DeformBlock, str], None]] = {
    "bound": _bound,
    "square": _square,
    "round": _round,
    "depthwise": _depthwise,
}
