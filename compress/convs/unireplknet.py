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
from convkit.compress.convs.dilated_reparam import DilatedReparamBlock

_TINY = 1e-6


class SEBlock(nn.Module):
    """x [N, C, H, W] times a gate of each channel. Names are those of the reference implementation."""

    def __init__(self, channels: int, internal: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, internal, 1), nn.Conv2d(internal, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(self.down(x.mean((2, 3), keepdim=True)).relu()))


class GRN(nn.Module):
    """x [N, C, H, W]: each channel by its share of the response. `gamma`, `beta` [1, 1, 1, C] as in the reference."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Without beta, which the next layer takes."""
        response = x.square().sum((2, 3), keepdim=True).sqrt()
        share = response / (response.mean(1, keepdim=True) + _TINY)
        return x * (self.gamma.reshape(1, -1, 1, 1) * share + 1)


class UniRepLKNetBlock(nn.Module):
    """x [N, C, H, W]. Names are those of the reference implementation, so that its weights load."""

    def __init__(self, channels: int, kernel_size: int, *, ffn_factor: int = 4) -> None:
        super().__init__()
        if channels < 4:  # noqa: PLR2004 - SE has a quarter of them inside
            raise ValueError(f"a UniRepLKNet block has four channels or more, not {channels}")
        hidden = ffn_factor * channels
        self.dwconv = DilatedReparamBlock(channels, kernel_size)
        self.norm, self.se = nn.BatchNorm2d(channels), SEBlock(channels, channels // 4)
        self.pwconv1 = nn.ModuleDict({"1": nn.Linear(channels, hidden)})
        self.act = nn.ModuleDict({"1": GRN(hidden)})
        self.pwconv2 = nn.ModuleDict({"0": nn.Linear(hidden, channels, bias=False), "2": nn.BatchNorm2d(channels)})
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        made = self.se(self.norm(self.dwconv(x)))
        first, second, norm, responses = self._parts()
        hidden = F.gelu(F.conv2d(made, first.weight[:, :, None, None], first.bias))
        weight, bias = (
            self._folded() if not self.training else (second.weight, second.weight @ responses.beta.flatten())
        )
        joined = F.conv2d(responses(hidden), weight[:, :, None, None], bias)
        if self.training:
            joined = norm(joined) * self.gamma.reshape(1, -1, 1, 1)
        return x + joined

    def _parts(self) -> tuple[nn.Linear, nn.Linear, nn.BatchNorm2d, GRN]:
        """The layers behind the kernel; the last norm has statistics."""
        linear, norm = self.pwconv2["0"], self.pwconv2["2"]
        return cast(
            "tuple[nn.Linear, nn.Linear, nn.BatchNorm2d, GRN]", (self.pwconv1["1"], linear, norm, self.act["1"])
        )

    def _folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the last layer with what stands before and behind it."""
        _, second, norm, responses = self._parts()
        assert norm.running_mean is not None  # noqa: S101 - it is built with statistics
        assert norm.running_var is not None  # noqa: S101
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        weight = second.weight * (self.gamma * scale).unsqueeze(1)
        return weight, weight @ responses.beta.flatten() + self.gamma * (norm.bias - norm.running_mean * scale)


def _examples() -> Iterator[Example]:
    """Two sizes of kernels, with statistics and scales that are not those of a fresh block."""
    for channels, size, image in ((8, 7, (9, 12)), (4, 13, (11, 8))):
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
