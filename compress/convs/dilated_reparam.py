"""Dilated reparam block: a large depthwise kernel trained beside small dilated ones, merged into it once trained.

Ding et al., UniRepLKNet, CVPR 2024, section 3.1. Each branch is a depthwise convolution and a BatchNorm; a branch of
kernel k and dilation r is one of r (k - 1) + 1 with zeros between, so that the sum is one convolution with a bias.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from convkit.compress.conv import Conv, Example

BRANCHES: Mapping[int, tuple[tuple[int, int], ...]] = {
    5: ((3, 1), (3, 2)),
    7: ((5, 1), (3, 2), (3, 3)),
    9: ((5, 1), (5, 2), (3, 3), (3, 4)),
    11: ((5, 1), (5, 2), (3, 3), (3, 4), (3, 5)),
    13: ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
    15: ((5, 1), (7, 2), (3, 3), (3, 5), (3, 7)),
    17: ((5, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
}
"""Kernel and dilation of the branches beside a kernel of this size."""


class DilatedReparamBlock(nn.Module):
    """x [N, C, H, W]. Names are those of the reference implementation, so that its weights load; `deploy`: merged."""

    def __init__(self, channels: int, kernel_size: int, *, deploy: bool = False) -> None:
        super().__init__()
        if kernel_size not in BRANCHES:
            sizes = ", ".join(map(str, BRANCHES))
            raise ValueError(f"a dilated reparam block has a kernel of {sizes}, not {kernel_size}")
        self.lk_origin = nn.Conv2d(
            channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=deploy
        )
        self.branches = () if deploy else BRANCHES[kernel_size]
        if not deploy:
            self.origin_bn = nn.BatchNorm2d(channels)
        for size, dilation in self.branches:
            padding = (dilation * (size - 1) + 1) // 2
            branch = nn.Conv2d(
                channels, channels, size, padding=padding, dilation=dilation, groups=channels, bias=False
            )
            self.add_module(f"dil_conv_k{size}_{dilation}", branch)
            self.add_module(f"dil_bn_k{size}_{dilation}", nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.lk_origin(x)
        if not self.branches:
            return made
        made = self.origin_bn(made)
        for size, dilation in self.branches:
            branch, norm = (self.get_submodule(f"dil_{kind}_k{size}_{dilation}") for kind in ("conv", "bn"))
            made = made + norm(branch(x))
        return made


def _examples() -> Iterator[Example]:
    """Every size, with statistics that are not those of a fresh norm, on images smaller and larger than the kernel."""
    for index, size in enumerate(BRANCHES):
        layer = DilatedReparamBlock(3, size)
        for norm in layer.modules():
            if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None:
                nn.init.normal_(norm.running_mean)
                nn.init.uniform_(norm.running_var, 0.3, 2.0)
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.normal_(norm.bias)
        yield Example(layer, {"x": (3, 11 + index, 20 - 2 * index)})
    yield Example(DilatedReparamBlock(4, 7, deploy=True), {"x": (4, 9, 9)})


PART = Conv(
    paper="UniRepLKNet: A Universal Perception Large-Kernel ConvNet (CVPR 2024)",
    tier="T0",
    layers=(DilatedReparamBlock,),
    examples=_examples,
    usual=lambda: Example(DilatedReparamBlock(96, 13), {"x": (96, 28, 28)}),
)
