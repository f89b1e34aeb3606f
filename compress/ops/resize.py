"""Resize: separable interpolation, one axis after the other.

Every mode is a few taps an output element: indices into the axis and their weights. So one function gathers for
nearest, linear and cubic alike, and gradients pass through all of them.
"""
# ruff: noqa: N802, PLR0911, PLR0913, PLR2004 - functions are named after their ONNX operators, modes and kernels are many

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class _Axis:
    size: int
    wanted: int
    scale: float
    start: float
    """The region of interest, as fractions of the axis; used by tf_crop_and_resize alone."""
    end: float


def Resize(
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    """x resized along `axes` (default all) by `scales`, or to `sizes`."""
    dims = [axis % x.ndim for axis in axes] if axes is not None else list(range(x.ndim))
    plan = _plan(x, dims, roi, scales, sizes, keep_aspect_ratio_policy)
    if (
        not antialias
        and not exclude_outside
        and _is_torchs(x, plan, mode, coordinate_transformation_mode, cubic_coeff_a)
    ):
        return _interpolated(
            x, plan, mode, coordinate_transformation_mode == "align_corners", by_scale=scales is not None
        )
    for dim, axis in plan.items():
        if axis.wanted == axis.size and axis.scale == 1.0 and coordinate_transformation_mode != "tf_crop_and_resize":
            continue
        place = _place(axis, coordinate_transformation_mode, torch.float32 if mode == "nearest" else torch.float64)
        if mode == "nearest":
            x = x.index_select(dim, _nearest(place, nearest_mode).clamp(0, axis.size - 1).to(x.device))
        else:
            x = _interpolate(x, dim, place, axis, mode, antialias, cubic_coeff_a, exclude_outside)
        if coordinate_transformation_mode == "tf_crop_and_resize":
            outside = ((place < 0) | (place > axis.size - 1)).to(x.device)
            x = torch.where(_view(outside, dim, x.ndim), x.new_tensor(extrapolation_value), x)
    return x


_TORCH_MODES = {("linear", 3): "linear", ("linear", 4): "bilinear", ("linear", 5): "trilinear", ("cubic", 4): "bicubic"}


_UPSAMPLED = {
    "linear": torch.ops.aten.upsample_linear1d,
    "bilinear": torch.ops.aten.upsample_bilinear2d,
    "trilinear": torch.ops.aten.upsample_trilinear3d,
    "bicubic": torch.ops.aten.upsample_bicubic2d,
}
"""What F.interpolate calls, given both sizes and scales."""


def _is_torchs(x: Tensor, plan: dict[int, _Axis], mode: str, place: str, a: float) -> bool:
    """Whether F.interpolate does just this. Its coordinates are float32, so only it gives what a torch source gives."""
    spatial = all(dim > 1 or (axis.wanted == axis.size and axis.scale == 1.0) for dim, axis in plan.items())
    known = (mode, x.ndim) in _TORCH_MODES and place in {"half_pixel", "align_corners"}
    return spatial and known and x.is_floating_point() and (mode == "linear" or a == -0.75)


def _interpolated(x: Tensor, plan: dict[int, _Axis], mode: str, align_corners: bool, *, by_scale: bool) -> Tensor:
    rank = x.ndim - 2
    axes = [plan.get(dim, _Axis(x.shape[dim], x.shape[dim], 1.0, 0.0, 1.0)) for dim in range(2, 2 + rank)]
    kind = _TORCH_MODES[mode, x.ndim]
    if by_scale and not align_corners:
        sizes, scales = [axis.wanted for axis in axes], [axis.scale for axis in axes]
        made: Tensor = _UPSAMPLED[kind](x, sizes, False, *scales)
        return made
    return F.interpolate(x, size=[axis.wanted for axis in axes], mode=kind, align_corners=align_corners)


def _plan(
    x: Tensor, dims: list[int], roi: Tensor | None, scales: Tensor | None, sizes: Tensor | None, policy: str
) -> dict[int, _Axis]:
    full = [x.shape[dim] for dim in dims]
    if scales is not None and scales.numel():
        factors = [float(scale) for scale in scales.tolist()]
        # As engines do, in float32: 20 by 0.7 are 14, though the 0.7 that a file holds is a little less.
        single = (np.float32(size) * np.float32(factor) for size, factor in zip(full, factors, strict=True))
        wanted = [math.floor(size) for size in single]
    elif sizes is not None and sizes.numel():
        wanted, factors = _by_sizes(full, [int(size) for size in sizes.tolist()], policy)
    else:
        raise ValueError("Resize needs scales or sizes")
    region = roi.tolist() if roi is not None and roi.numel() == 2 * len(dims) else [0.0] * len(dims) + [1.0] * len(dims)
    pairs = zip(region[: len(dims)], region[len(dims) :], strict=True)
    return {
        dim: _Axis(size, want, factor, start, end)
        for dim, size, want, factor, (start, end) in zip(dims, full, wanted, factors, pairs, strict=True)
    }


def _by_sizes(full: list[int], sizes: list[int], policy: str) -> tuple[list[int], list[float]]:
    factors = [want / size for want, size in zip(sizes, full, strict=True)]
    if policy == "stretch":
        return sizes, factors
    factor = min(factors) if policy == "not_larger" else max(factors)
    return [math.floor(size * factor + 0.5) for size in full], [factor] * len(full)


def _place(axis: _Axis, mode: str, kind: torch.dtype) -> Tensor:
    """For each output element its place along the input axis; engines have that of the nearest in float32."""
    i, scale = torch.arange(axis.wanted, dtype=kind), torch.tensor(axis.scale, dtype=kind)
    if mode == "half_pixel":
        return (i + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return (i + 0.5) / scale - 0.5 if axis.wanted > 1 else i * 0.0
    if mode == "asymmetric":
        return i / scale
    if mode == "align_corners":
        return i * (axis.size - 1) / (axis.wanted - 1) if axis.wanted > 1 else i * 0.0
    if mode == "half_pixel_symmetric":
        adjustment = (i.new_tensor(axis.wanted) / (scale * axis.size)).double()
        return (axis.size / 2 * (1 - adjustment) + (i.double() + 0.5) / scale.double() - 0.5).to(kind)
    if mode == "tf_crop_and_resize":
        if axis.wanted == 1:
            return i * 0.0 + 0.5 * (axis.start + axis.end) * (axis.size - 1)
        return (axis.start + i * (axis.end - axis.start) / (axis.wanted - 1)) * (axis.size - 1)
    raise ValueError(f"Resize has no coordinate_transformation_mode {mode!r}")


_TIE = 1e-6
"""How far from the middle of two a place is between them yet: that of an engine is off by its last bits."""


def _nearest(place: Tensor, mode: str) -> Tensor:
    if mode == "floor":
        return torch.floor(place).long()
    if mode == "ceil":
        return torch.ceil(place).long()
    if mode in {"round_prefer_floor", "round_prefer_ceil"}:
        below = torch.floor(place)
        tie = (place - below - 0.5).abs() <= _TIE
        return torch.where(tie, below + (mode == "round_prefer_ceil"), torch.floor(place + 0.5)).long()
    raise ValueError(f"Resize has no nearest_mode {mode!r}")


def _interpolate(
    x: Tensor, dim: int, place: Tensor, axis: _Axis, mode: str, antialias: int, a: float, exclude_outside: int
) -> Tensor:
    stretch = min(axis.scale, 1.0) if antialias else 1.0
    support = {"linear": 1.0, "cubic": 2.0}[mode] / stretch
    first = torch.floor(place - support).long() + 1
    taps = first.unsqueeze(1) + torch.arange(math.ceil(2 * support))
    distance = (taps - place.unsqueeze(1)).abs() * stretch
    weights = _cubic(distance, a) if mode == "cubic" else (1.0 - distance).clamp(min=0.0)
    if exclude_outside:
        weights = weights * ((taps >= 0) & (taps < axis.size))
    if exclude_outside or antialias:
        weights = weights / weights.sum(1, keepdim=True)
    used = [k for k in range(taps.shape[1]) if bool(weights[:, k].any())]
    taps = taps.clamp(0, axis.size - 1).to(x.device)
    weights = weights.to(x.device, x.dtype if x.is_floating_point() else torch.float32)
    parts = [x.index_select(dim, taps[:, k]) * _view(weights[:, k], dim, x.ndim) for k in used]
    total = torch.stack(parts).sum(0) if len(parts) > 2 else sum(parts[1:], parts[0])
    return total.to(x.dtype)


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Keys' kernel (1981)."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, torch.zeros_like(distance)))


def _view(vector: Tensor, dim: int, rank: int) -> Tensor:
    return vector.reshape([-1 if i == dim else 1 for i in range(rank)])
