"""Spatio-temporal decomposition: a convolution in space beside one in time, and a third that joins them with the input.

Kim et al., Flow4D: Leveraging 4D Voxel Network for LiDAR Scene Flow Estimation, RA-L 2025, section 3.3. Convolutions of
voxels that are occupied are dense ones here, with the empty places emptied again behind each: for small grids.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.conv import Conv, Example

_SLOPE = 0.01


class STDB(nn.Module):
    """x [N, C, X, Y, Z, T], and `occupied` of the same shape with one channel: 1 where there is a voxel, else 0. Empty
    places of x are nothing, and stay that.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.space = nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False)
        self.time = nn.Conv1d(in_channels, out_channels, 3, padding=1, bias=False)
        self.joined = nn.Conv1d(2 * out_channels + in_channels, out_channels, 1, bias=False)
        self.space_norm, self.time_norm = nn.BatchNorm3d(out_channels), nn.BatchNorm1d(out_channels)
        self.joined_norm = nn.BatchNorm1d(out_channels)

    def forward(self, x: Tensor, occupied: Tensor) -> Tensor:
        channels, places = x.shape[1], x.shape[2:]
        frames = x.permute(0, 5, 1, 2, 3, 4).reshape(-1, channels, *places[:3])
        space = self.space_norm(self.space(frames)).reshape(-1, places[3], self.space.out_channels, *places[:3])
        rows = x.permute(0, 2, 3, 4, 1, 5).reshape(-1, channels, places[3])
        time = self.time_norm(self.time(rows)).reshape(-1, *places[:3], self.time.out_channels, places[3])
        both = (
            _active(space.permute(0, 2, 3, 4, 5, 1), occupied),
            _active(time.permute(0, 4, 1, 2, 3, 5), occupied),
            x,
        )
        whole = self.joined_norm(self.joined(torch.cat(both, 1).flatten(2)))
        return _active(whole.reshape(-1, self.joined.out_channels, *places), occupied)


def _active(x: Tensor, occupied: Tensor) -> Tensor:
    """A norm's bias leaks into empty places; they are emptied."""
    return F.leaky_relu(x, _SLOPE) * occupied


class _Voxels(nn.Module):
    """Two blocks on voxels that are occupied where `field` is above nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList((STDB(channels, channels + 1), STDB(channels + 1, channels)))

    def forward(self, x: Tensor, field: Tensor) -> Tensor:
        occupied = (field > 0).to(x.dtype)
        x = x * occupied
        for block in self.blocks:
            x = block(x, occupied)
        return x


def _examples() -> Iterator[Example]:
    """Grids of different edges, over three frames and over two."""
    for channels, places in ((2, (5, 4, 3, 3)), (3, (4, 6, 2, 2))):
        net = _Voxels(channels)
        for norm in net.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm3d):
                assert norm.running_mean is not None  # noqa: S101 - it is built with statistics
                assert norm.running_var is not None  # noqa: S101
                nn.init.normal_(norm.running_mean)
                nn.init.uniform_(norm.running_var, 0.3, 2.0)
                nn.init.normal_(norm.bias)
        yield Example(net, {"x": (channels, *places), "field": (1, *places)})


PART = Conv(
    paper="Flow4D: Leveraging 4D Voxel Network for LiDAR Scene Flow Estimation (RA-L 2025)",
    tier="T3",
    layers=(STDB,),
    examples=_examples,
    usual=lambda: Example(_Voxels(16), {"x": (16, 32, 32, 8, 3), "field": (1, 32, 32, 8, 3)}),
)
