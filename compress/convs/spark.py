"""Masked convolution: what hidden patches would leak into their neighbours is set to nothing behind each layer.

Tian et al., SparK: Designing BERT for Convolutional Networks, ICLR 2023, section 3.1. It is for pre-training; the
weights are then those of ordinary layers, into which they load under the same names. Norms are those of torch, of the
shown places alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convkit.compress.conv import Conv, Example

Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
_HALVES = (torch.float16, torch.bfloat16)


def shown(x: Tensor, active: Tensor) -> Tensor:
    """x [N, C, H, W] where `active` [N, 1, h, w], of h | H and w | W patches, is 1, and nothing elsewhere."""
    height, width = (int(size) for size in x.shape[2:])
    rows, columns = (int(size) for size in active.shape[2:])
    if height % rows or width % columns:
        raise ValueError(f"a map of {height}x{width} does not part into {rows}x{columns} patches")
    return x * F.interpolate(active, scale_factor=(float(height // rows), float(width // columns)))


def keeps(norm: Norm) -> bool:
    """Whether `norm` goes by running statistics now, which no place of this batch changes."""
    return not norm.training and norm.running_mean is not None


def of_places(norm: Norm, x: Tensor, places: Tensor) -> Tensor:
    """x [N, C, *] by the statistics of where `places` [N, 1, *] is 1, as `norm` has it of those rows alone: the running
    statistics of one that is training follow. Elsewhere it is something, and to be hidden.
    """
    # Sums of many places, which half precision does not hold.
    wide, where = (x.float(), places.float()) if x.dtype in _HALVES else (x, places)
    axes, count = (0, *range(2, x.ndim)), where.sum().clamp_min(1)
    mean = (wide * where).sum(axes, keepdim=True) / count
    variance = ((wide - mean).square() * where).sum(axes, keepdim=True) / count
    if norm.training:
        _follow(norm, mean.flatten(), variance.flatten() * count / (count - 1).clamp_min(1))
    normal = (wide - mean) / (variance + norm.eps).sqrt()
    if norm.affine:
        normal = normal * norm.weight.reshape(mean.shape) + norm.bias.reshape(mean.shape)
    return normal.to(x.dtype)


@torch.no_grad()
def _follow(norm: Norm, mean: Tensor, variance: Tensor) -> None:
    """The running statistics of `norm`, one batch on; without a momentum they are the mean of all batches."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean), share)
    norm.running_var.lerp_(variance.to(norm.running_var), share)


class SparseConv2d(nn.Conv2d):
    """x [N, C, H, W] and `active` [N, 1, h, w]."""

    def forward(self, x: Tensor, active: Tensor) -> Tensor:  # type: ignore[override]
        return shown(super().forward(x), active)


class SparseMaxPool2d(nn.MaxPool2d):
    """As SparseConv2d takes it."""

    def forward(self, x: Tensor, active: Tensor) -> Tensor:  # type: ignore[override]
        return shown(super().forward(x), active)


class SparseBatchNorm2d(nn.BatchNorm2d):
    """As SparseConv2d takes it: nn.BatchNorm1d of the active places, in training and in evaluation."""

    def forward(self, x: Tensor, active: Tensor) -> Tensor:  # type: ignore[override]
        if keeps(self):
            return shown(super().forward(x), active)
        places = shown(torch.ones_like(x[:, :1]), active)
        return of_places(self, x, places) * places


class _Masked(nn.Module):
    """An encoder on the patches where `field` is above nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = SparseConv2d(3, 6, 3, padding=1, bias=False), SparseConv2d(6, 4, 3, padding=1)
        self.norm, self.pool = SparseBatchNorm2d(6), SparseMaxPool2d(2)

    def forward(self, x: Tensor, field: Tensor) -> Tensor:
        active = (field > 0).to(x.dtype)
        made = self.norm(self.first(shown(x, active), active), active).relu()
        hidden: Tensor = self.second(self.pool(made, active), active)
        return hidden


def _examples() -> Iterator[Example]:
    """Patches of images that are not square."""
    for patches, size in (((2, 3), (8, 12)), ((3, 1), (12, 6))):
        net = _Masked()
        if net.norm.running_mean is not None and net.norm.running_var is not None:
            nn.init.normal_(net.norm.running_mean)
            nn.init.uniform_(net.norm.running_var, 0.3, 2.0)
        nn.init.normal_(net.norm.bias)
        yield Example(net, {"x": (3, *size), "field": (1, *patches)})


PART = Conv(
    paper="SparK: Designing BERT for Convolutional Networks (ICLR 2023)",
    tier="T1",
    layers=(SparseConv2d, SparseMaxPool2d, SparseBatchNorm2d),
    examples=_examples,
    usual=lambda: Example(_Masked(), {"x": (3, 224, 224), "field": (1, 7, 7)}),
)
