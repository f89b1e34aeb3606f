"""Interpolation and padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from convkit.compress.sources._aten import Result, Translate
from convkit.compress.sources._aten_graph import Builder, Number, Operand, Size, shape, value
from convkit.compress.sources._aten_size import expression

_STEPS = 8
"""Of float32, that a product of two may be off by, and more."""
_NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
_NEAREST_EXACT = {
    "mode": "nearest",
    "coordinate_transformation_mode": "half_pixel",
    "nearest_mode": "round_prefer_ceil",
}


def _resize(
    b: Builder, x: Operand, sizes: Sequence[Size] | None, scales: Sequence[float | None] | None, **how: object
) -> Operand:
    """Exact scales are preferred: they hold for every free size."""
    places = shape(x)[2:]
    exact = [scale for scale in scales or () if scale is not None]
    known = exact if len(exact) == len(places) else _ratios(places, sizes or b.val.shape[2:])
    if known is not None:
        known = [_stored(*one) for one in zip(places, known, b.val.shape[2:], strict=True)]
        return b.op("Resize", x, None, b.constant([1.0, 1.0, *known], torch.float32), **how)
    # Of all axes: TensorRT's parser takes no sizes of some of them where a size is free.
    return b.op("Resize", x, None, None, b.sizes((*shape(x)[:2], *(sizes or b.val.shape[2:]))), **how)


def _stored(have: Size, scale: float, wanted: Size) -> float:
    """The float32 nearest to `scale` with which engines, who count in float32, come to the size that torch has, who
    counts in float64."""
    if not (isinstance(have, int) and isinstance(wanted, int)):
        return scale
    single = np.float32(scale)
    for _ in range(_STEPS):
        made = int(np.float32(have) * single)
        if made == wanted:
            break
        single = np.nextafter(single, np.float32(0 if made > wanted else np.inf))
    return float(single)


def _ratios(given: Sequence[Size], wanted: Sequence[Size]) -> list[float] | None:
    """Wanted over given where that is a whole number, or one over it, on every axis."""
    ratios = []
    for have, want in zip(given, wanted, strict=True):
        up, down = (expression(a) / expression(b) for a, b in ((want, have), (have, want)))
        if int_like(up):
            ratios.append(float(up))
        elif int_like(down):
            ratios.append(1 / float(down))
        else:
            return None
    return ratios


def int_like(ratio: object) -> bool:
    """A whole number, be it a float or a formula."""
    number = getattr(ratio, "is_number", isinstance(ratio, float | int))
    return bool(number) and float(ratio) == int(ratio)  # type: ignore[arg-type, call-overload]


def _nearest(how: dict[str, str]) -> Translate:
    def translate(b: Builder, x: Operand, sizes: Sequence[Size] | None, *scales: object) -> Result:
        return _resize(b, x, sizes, _listed(scales), **how)

    return translate


def _linear(mode: str) -> Translate:
    def translate(b: Builder, x: Operand, sizes: Sequence[Size] | None, align_corners: bool, *scales: object) -> Result:
        place = "align_corners" if align_corners else "half_pixel"
        options = {"cubic_coeff_a": -0.75} if mode == "cubic" else {}
        return _resize(b, x, sizes, _listed(scales), mode=mode, coordinate_transformation_mode=place, **options)

    return translate


def _listed(scales: Sequence[object]) -> Sequence[float | None] | None:
    """One list in the `vec` overloads, one number an axis in the others."""
    if len(scales) == 1 and isinstance(scales[0], list | tuple):
        return scales[0]
    return [scale if isinstance(scale, float) else None for scale in scales] or None


_LAST = 2**62
"""Beyond the end of every axis."""
_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def _pad(b: Builder, x: Operand, pads: Sequence[Size], mode: str = "constant", fill: Number | None = None) -> Result:
    """torch lists (begin, end) from the last axis on; ONNX all begins, then all ends."""
    if all(isinstance(size, int) and size == 0 for size in pads):
        return x
    rank, count = len(shape(x)), len(pads) // 2
    begins = [0] * (rank - count) + [pads[2 * i] for i in reversed(range(count))]
    ends = [0] * (rank - count) + [pads[2 * i + 1] for i in reversed(range(count))]
    known = [size for size in pads if isinstance(size, int) and size >= 0]
    if mode == "circular" and len(known) == len(pads):
        return _around(b, x, known)
    constant = b.cast(fill, value(x).dtype) if fill else None
    return b.op("Pad", x, b.sizes([*begins, *ends]), constant, mode=_MODES[mode])


def _around(b: Builder, x: Operand, pads: Sequence[int]) -> Result:
    """Circular padding as slices: among the engines it is a mode of Pad in ONNX Runtime alone."""
    for turn, (begin, end) in enumerate(zip(pads[::2], pads[1::2], strict=True)):
        axis = b.val.ndim - 1 - turn
        whole, place = x, b.integers(axis)
        before = [b.op("Slice", whole, b.integers(-begin), b.integers(_LAST), place)] if begin else []
        behind = [b.op("Slice", whole, b.integers(0), b.integers(end), place)] if end else []
        if before or behind:
            x = b.op("Concat", *before, whole, *behind, axis=axis)
    return x


def _constant_pad(b: Builder, x: Operand, pads: Sequence[Size], fill: Number = 0) -> Result:
    return _pad(b, x, pads, "constant", fill)


def _border_pad(mode: str) -> Translate:
    return lambda b, x, pads: _pad(b, x, pads, mode)


def _grid_sample(b: Builder, x: Operand, grid: Operand, mode: int, padding: int, align_corners: bool) -> Result:
    names = ("linear", "nearest", "cubic")[mode], ("zeros", "border", "reflection")[padding]
    return b.op("GridSample", x, grid, mode=names[0], padding_mode=names[1], align_corners=int(align_corners))


TABLE: dict[str, Translate] = {
    **{f"upsample_nearest{n}d": _nearest(_NEAREST) for n in (1, 2, 3)},
    **{f"_upsample_nearest_exact{n}d": _nearest(_NEAREST_EXACT) for n in (1, 2, 3)},
    "upsample_linear1d": _linear("linear"), "upsample_bilinear2d": _linear("linear"),
    "upsample_trilinear3d": _linear("linear"), "upsample_bicubic2d": _linear("cubic"),
    "pad": _pad, "constant_pad_nd": _constant_pad,
    **{f"reflection_pad{n}d": _border_pad("reflect") for n in (1, 2, 3)},
    **{f"replication_pad{n}d": _border_pad("replicate") for n in (1, 2, 3)},
    "grid_sampler": _grid_sample,
}  # fmt: skip
