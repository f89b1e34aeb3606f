"""Deformable convolutions made easier for hardware: exact where they are so already."""

import pytest
import torch
from torch import nn

from convkit.compress import codesign
from convkit.compress.convs.deform import DeformBlock
from convkit.compress.errors import ConvkitError

X = torch.randn(2, 4, 12, 14, generator=torch.Generator().manual_seed(0))


def block(**options: object) -> DeformBlock:
    torch.manual_seed(1)
    return DeformBlock(4, 6, **options)


def same(one: nn.Module, wanted: torch.Tensor) -> bool:
    with torch.no_grad():
        return bool((one(X) - wanted).abs().max() <= 1e-5 * wanted.abs().max())


def wide(made: DeformBlock, weight: torch.Tensor) -> DeformBlock:
    """With offsets of every tap that are what one offset, of `weight` [C, 3, 3] and 1, makes of all."""
    with torch.no_grad():
        made.offset.weight.copy_(codesign.corners()[:, None, None, None] * weight)
        made.offset.bias.copy_(codesign.corners())
    return made


def test_one_offset_for_all_taps_that_widen_alike() -> None:
    made = wide(block(bound=2.0), 0.001 * torch.rand(4, 3, 3))
    with torch.no_grad():
        wanted = made(X)
    codesign.codesigned(made, "square")
    assert made.offset.out_channels == 1
    assert made.square
    assert same(made, wanted)


def test_within_the_bound_nothing_changes() -> None:
    made = wide(block(), 0.001 * torch.rand(4, 3, 3))
    with torch.no_grad():
        wanted = made(X)
    assert same(codesign.codesigned(made, "bound"), wanted)
    assert made.bound == codesign.BOUND


def test_whole_pixels_stay() -> None:
    made = wide(block(), torch.zeros(4, 3, 3))
    with torch.no_grad():
        wanted = made(X)
    assert same(codesign.codesigned(made, "round"), wanted)


def test_kernels_of_one_direction_are_depthwise() -> None:
    made = block()
    with torch.no_grad():
        made.offset.weight.zero_()
        made.offset.bias.zero_()
        made.conv.weight.copy_((torch.randn(6, 4, 1) * torch.randn(6, 1, 9)).reshape(6, 4, 3, 3))
        wanted = made(X)
    network = codesign.codesigned(nn.Sequential(made), "depthwise", "square")
    assert made.conv.weight.shape == (6, 1, 3, 3)
    assert same(network, wanted)


@pytest.mark.parametrize(
    ("made", "kinds", "told"),
    [
        (nn.Sequential(nn.Conv2d(4, 6, 3)), ("bound",), "no DeformBlock"),
        (block(), ("bounds",), "not made 'bounds'"),
        (nn.Sequential(block(modulated=True)), ("square",), "'0' is modulated"),
        (nn.Sequential(block(kernel_size=5)), ("square",), "'0' is no 3x3 block whose stride"),
        (nn.Sequential(block(dilation=2)), ("depthwise",), "'0' is no 3x3 block whose stride"),
        (nn.Sequential(block(groups=2)), ("bound", "depthwise"), "'0' is no 3x3 block whose stride"),
    ],
)
def test_what_cannot_be_is_told(made: nn.Module, kinds: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConvkitError, match=told):
        codesign.codesigned(made, *kinds)
