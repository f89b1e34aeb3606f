"""Spatio-temporal decomposition: a convolution in space beside one in time, and a third that joins them with the input.

Kim et al., Flow4D: Leveraging 4D Voxel Network for LiDAR Scene Flow Estimation, RA-L 2025, section 3.3. Convolutions of
voxels that are occupied are dense ones here, with the empty places emptied again behind each: for small grids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.adopting import Adopting, State, renamed
from convkit.compress.conv import Conv, Example
from convkit.compress.convs.spark import Norm, keeps, of_places

_SLOPE = 0.01
_CONVS = {"spatial_conv": "space", "temporal_conv": "time", "fusion_conv": "joined"}
_NORMS = {"bn_s": "space_norm", "bn_t": "time_norm", "bn_fusion": "joined_norm"}
_HALVES = {"1": "first", "2": "second"}


class STDB(nn.Module):
    """x [N, C, X, Y, Z, T], and `occupied` of the same shape with one channel: 1 where there is a voxel, else 0. Empty
    places of x are nothing, and stay that; the norms see voxels alone.

    Both convolutions give `mid_channels`, which are `out_channels` unless it is told. This is half of the block that
    the reference implementation calls so: SpatioTemporalDecompositionBlock loads its weights.
    """

    def __init__(self, in_channels: int, out_channels: int, mid_channels: int | None = None) -> None:
        super().__init__()
        inside = out_channels if mid_channels is None else mid_channels
        self.space = nn.Conv3d(in_channels, inside, 3, padding=1, bias=False)
        self.time = nn.Conv1d(in_channels, inside, 3, padding=1, bias=False)
        self.joined = nn.Conv1d(2 * inside + in_channels, out_channels, 1, bias=False)
        self.space_norm, self.time_norm = nn.BatchNorm3d(inside), nn.BatchNorm1d(inside)
        self.joined_norm = nn.BatchNorm1d(out_channels)

    def forward(self, x: Tensor, occupied: Tensor) -> Tensor:
        places = x.shape[2:]
        space = _normed(self.space_norm, self.space(_frames(x)), occupied, _frames)
        time = _normed(self.time_norm, self.time(_rows(x)), occupied, _rows)
        space = space.reshape(-1, places[3], self.space.out_channels, *places[:3]).permute(0, 2, 3, 4, 5, 1)
        time = time.reshape(-1, *places[:3], self.time.out_channels, places[3]).permute(0, 4, 1, 2, 3, 5)
        both = torch.cat((_active(space, occupied), _active(time, occupied), x), 1)
        whole = _normed(self.joined_norm, self.joined(_flat(both)), occupied, _flat)
        return _active(whole.reshape(-1, self.joined.out_channels, *places), occupied)


class SpatioTemporalDecompositionBlock(Adopting):
    """Two halves, one behind the other: x [N, Cin, X, Y, Z, T] and `occupied` as STDB takes them, to [N, Cout, X, Y, Z,
    T], by way of Cmid. Weights of the reference implementation load; its pooling is no part of this.
    """

    def __init__(self, in_channels: int, mid_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = STDB(in_channels, mid_channels)
        self.second = STDB(mid_channels, out_channels, mid_channels)

    def own(self, state: State) -> State:
        """Kernels [O, X, Y, Z, T, I] of spconv 2 as torch has them."""
        kernels = {f"{theirs}_{n}.weight": (ours, n) for theirs, ours in _CONVS.items() for n in _HALVES}
        norms = {rf"{theirs}_{n}\.": f"{_HALVES[n]}.{ours}." for theirs, ours in _NORMS.items() for n in _HALVES}
        found = renamed({name: tensor for name, tensor in state.items() if name not in kernels}, norms)
        for name in kernels.keys() & state.keys():
            ours, half = kernels[name]
            found[f"{_HALVES[half]}.{ours}.weight"] = _kernel(name, state[name], ours)
        return found

    def forward(self, x: Tensor, occupied: Tensor) -> Tensor:
        made: Tensor = self.second(self.first(x, occupied), occupied)
        return made


def _kernel(name: str, weight: Tensor, ours: str) -> Tensor:
    if weight.ndim != 6:  # noqa: PLR2004 - [O, X, Y, Z, T, I]
        raise ValueError(f"{name} is a kernel [O, X, Y, Z, T, I] of spconv 2, not {list(weight.shape)}")
    if ours == "joined":  # A kernel of one place is stored so, too, but spconv multiplies by its memory as [I, O].
        return weight.reshape(weight.shape[-1], weight.shape[0]).t().unsqueeze(2)
    kernel = weight.movedim(-1, 1)
    return kernel[..., 0] if ours == "space" else kernel[:, :, 0, 0, 0]


def _frames(x: Tensor) -> Tensor:
    """[N, C, X, Y, Z, T] as [N T, C, X, Y, Z]."""
    return x.permute(0, 5, 1, 2, 3, 4).reshape(-1, x.shape[1], *x.shape[2:5])


def _rows(x: Tensor) -> Tensor:
    """[N, C, X, Y, Z, T] as [N X Y Z, C, T]."""
    return x.permute(0, 2, 3, 4, 1, 5).reshape(-1, x.shape[1], x.shape[5])


def _flat(x: Tensor) -> Tensor:
    return x.flatten(2)


def _normed(norm: Norm, x: Tensor, occupied: Tensor, seen: Callable[[Tensor], Tensor]) -> Tensor:
    """By the statistics of voxels, where `norm` takes those of the batch; `seen` puts `occupied` in the shape of x."""
    if keeps(norm):
        made: Tensor = norm(x)
        return made
    return of_places(norm, x, seen(occupied))


def _active(x: Tensor, occupied: Tensor) -> Tensor:
    """A norm's bias leaks into empty places; they are emptied."""
    return F.leaky_relu(x, _SLOPE) * occupied


class _Voxels(nn.Module):
    """Blocks on voxels that are occupied where `field` is above nothing."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, field: Tensor) -> Tensor:
        occupied = (field > 0).to(x.dtype)
        x = x * occupied
        for block in self.blocks:
            x = block(x, occupied)
        return x


def _halves(channels: int) -> _Voxels:
    return _Voxels(STDB(channels, channels + 1), STDB(channels + 1, channels))


def _examples() -> Iterator[Example]:
    """Grids of different edges, over three frames and over two; halves, and a whole block."""
    for channels, mid, places in ((2, None, (5, 4, 3, 3)), (3, 4, (4, 6, 2, 2))):
        net = _halves(channels) if mid is None else _Voxels(SpatioTemporalDecompositionBlock(channels, mid, 2))
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
    layers=(STDB, SpatioTemporalDecompositionBlock),
    examples=_examples,
    usual=lambda: Example(_halves(16), {"x": (16, 32, 32, 8, 3), "field": (1, 32, 32, 8, 3)}),
)
