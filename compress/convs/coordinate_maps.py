"""Coordinate maps: channels that tell a convolution where it is, along height, along width, or along both.

Abdelnour et al., NAAQA: A Neural Architecture for Acoustic Question Answering, TPAMI 2022, section 4; after Liu et al.,
CoordConv, NeurIPS 2018.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from convkit.compress.conv import Conv, Example

_AXES = {"height": 2, "width": 3}


class CoordinateMaps(nn.Module):
    """x [N, C, H, W] with a channel more for each of `axes`, in their order, that goes from -1 to 1 along it: for
    spectrograms height is frequency and width is time.
    """

    def __init__(self, axes: Sequence[str] = ("height", "width")) -> None:
        super().__init__()
        unknown = [axis for axis in axes if axis not in _AXES]
        if unknown or not axes:
            raise ValueError(f"coordinate maps go along height or width, not {unknown[0] if unknown else 'nothing'!r}")
        self.axes = tuple(axes)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4:  # noqa: PLR2004 - NCHW
            raise ValueError(f"CoordinateMaps takes [N, C, H, W], not {list(x.shape)}")
        return torch.cat([x, *(_map(x, _AXES[axis]) for axis in self.axes)], dim=1)


def _map(x: Tensor, axis: int) -> Tensor:
    """[N, 1, H, W] from -1 to 1 along `axis`; -1 where that is one long, as torch.linspace has it."""
    size = x.shape[axis]
    steps = torch.arange(size, dtype=x.dtype, device=x.device) * (2 / max(size - 1, 1)) - 1
    shape = [1, 1, 1, 1]
    shape[axis] = size
    return steps.reshape(shape).expand(x.shape[0], 1, x.shape[2], x.shape[3])


def _examples() -> Iterator[Example]:
    """Each axis and both."""
    for axes in (("height",), ("width",), ("height", "width")):
        yield Example(CoordinateMaps(axes), {"x": (3, 5, 8)})


PART = Conv(
    paper="NAAQA: A Neural Architecture for Acoustic Question Answering (TPAMI 2022)",
    tier="T1",
    layers=(CoordinateMaps,),
    examples=_examples,
    usual=lambda: Example(CoordinateMaps(), {"x": (64, 56, 56)}),
    kept={"Concat": "positions span exactly -1 to 1, whatever the image spans"},
)
