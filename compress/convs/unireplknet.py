"""The block of UniRepLKNet: a large kernel, channel attention, and two linear layers with a norm of responses between.

Ding et al., UniRepLKNet, CVPR 2024, section 3.1; the norm is that of Woo et al., ConvNeXt V2, CVPR 2023, equations 1-3.
Trained, its bias, the norm behind it and the scale of the layer are the last linear layer's own weight and bias.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.conv import Conv, Example
from convkit.compress.convs.dilated_reparam import BRANCHES, DilatedReparamBlock

_TINY = 1e-6
_PLAIN = (3, 5)
"""Sizes of kernels that are plain depthwise convolutions."""


class SEBlock(nn.Module):
    """x [N, C, H, W] times a gate of each channel. Names are those of the reference implementation."""

    def __init__(self, channels: int, internal: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, internal, 1), nn.Conv2d(internal, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(self.down(x.mean((2, 3), keepdim=True)).relu()))


class GRN(nn.Module):
    """x [N, C, H, W]: each channel by its share of the response. `gamma`, `beta` [1, 1, 1, C] as in the reference."""

    def __init__(self, channels: int, *, bias: bool = True) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        if bias:
            self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Without beta, which the next layer takes."""
        response = x.square().sum((2, 3), keepdim=True).sqrt()
        share = response / (response.mean(1, keepdim=True) + _TINY)
        return x * (self.gamma.reshape(1, -1, 1, 1) * share + 1)


class UniRepLKNetBlock(nn.Module):
    """x [N, C, H, W]. Names are those of the reference implementation, so that its weights load.

    Kernels of 7 and more are dilated reparam blocks, of 3 and 5 plain depthwise ones, of 0 none. `deploy`: as the
    reference implementation merges it; `scaled`: with a scale of the whole layer.
    """

    def __init__(
        self, channels: int, kernel_size: int, *, ffn_factor: int = 4, deploy: bool = False, scaled: bool = True
    ) -> None:
        super().__init__()
        if channels < 4:  # noqa: PLR2004 - SE has a quarter of them inside
            raise ValueError(f"a UniRepLKNet block has four channels or more, not {channels}")
        hidden = ffn_factor * channels
        self.dwconv = _kernel(channels, kernel_size, deploy=deploy)
        self.norm = nn.BatchNorm2d(channels) if kernel_size and not deploy else nn.Identity()
        self.se = SEBlock(channels, channels // 4)
        self.pwconv1 = nn.ModuleDict({"1": nn.Linear(channels, hidden)})
        self.act = nn.ModuleDict({"1": GRN(hidden, bias=not deploy)})
        self.pwconv2 = nn.ModuleDict({"0": nn.Linear(hidden, channels, bias=deploy)})
        if not deploy:
            self.pwconv2["2"] = nn.BatchNorm2d(channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6)) if scaled and not deploy else None

    def forward(self, x: Tensor) -> Tensor:
        first, responses = cast("tuple[nn.Linear, GRN]", (self.pwconv1["1"], self.act["1"]))
        made = self.se(self.norm(self.dwconv(x)))
        hidden = responses(F.gelu(F.conv2d(made, first.weight[:, :, None, None], first.bias)))
        weight, bias = self._trained(responses) if self.training else self._folded(responses)
        joined = F.conv2d(hidden, weight[:, :, None, None], bias)
        if self.training and "2" in self.pwconv2:
            joined = self.pwconv2["2"](joined)
            joined = joined if self.gamma is None else joined * self.gamma.reshape(1, -1, 1, 1)
        return x + joined

    def _trained(self, responses: GRN) -> tuple[Tensor, Tensor]:
        """Weight and bias of the last linear layer, with the beta that stands before it."""
        linear = cast("nn.Linear", self.pwconv2["0"])
        if linear.bias is not None:
            return linear.weight, linear.bias
        return linear.weight, linear.weight @ responses.beta.flatten()

    def _folded(self, responses: GRN) -> tuple[Tensor, Tensor]:
        """The same with what stands behind it."""
        weight, bias = self._trained(responses)
        if "2" not in self.pwconv2:
            return weight, bias
        norm = cast("nn.BatchNorm2d", self.pwconv2["2"])
        assert norm.running_mean is not None  # noqa: S101 - it is built with statistics
        assert norm.running_var is not None  # noqa: S101
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        gamma = torch.ones_like(scale) if self.gamma is None else self.gamma
        return weight * (gamma * scale).unsqueeze(1), gamma * (norm.bias + (bias - norm.running_mean) * scale)


def _kernel(channels: int, size: int, *, deploy: bool) -> nn.Module:
    if size == 0:
        return nn.Identity()
    if size in _PLAIN:
        return nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels, bias=deploy)
    if size not in BRANCHES:
        known = ", ".join(map(str, sorted({0, *_PLAIN, *BRANCHES})))
        raise ValueError(f"a UniRepLKNet block has a kernel of {known}, not {size}")
    return DilatedReparamBlock(channels, size, deploy=deploy)


def _examples() -> Iterator[Example]:
    """Kernels large and plain, with statistics and scales that are not those of a fresh block, and a merged block."""
    deployed = UniRepLKNetBlock(4, 0, deploy=True)
    nn.init.normal_(cast("GRN", deployed.act["1"]).gamma)
    yield Example(deployed, {"x": (4, 5, 6)})
    for channels, size, image in ((8, 7, (9, 12)), (4, 13, (11, 8)), (4, 3, (6, 7))):
        block = UniRepLKNetBlock(channels, size)
        for name, parameter in block.named_parameters():
            if name.endswith(("gamma", "beta")):
                nn.init.normal_(parameter)
        for norm in block.modules():
            if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None:
                nn.init.normal_(norm.running_mean)
                nn.init.uniform_(norm.running_var, 0.3, 2.0)
                nn.init.normal_(norm.bias)
        yield Example(block, {"x": (channels, *image)})


_GATES = "a gate multiplies every channel: its error is the image's"
PART = Conv(
    paper="UniRepLKNet: A Universal Perception Large-Kernel ConvNet (CVPR 2024)",
    tier="T1",
    layers=(SEBlock, GRN, UniRepLKNetBlock),
    examples=_examples,
    usual=lambda: Example(UniRepLKNetBlock(96, 13), {"x": (96, 28, 28)}),
    kept={"Sigmoid": _GATES, "Sqrt": _GATES, "Div": _GATES},
)
