"""Pooling; adaptive pooling becomes global or plain pooling, or two small matrix products where windows differ."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from convkit.compress.sources._aten import Result, Translate
from convkit.compress.sources._aten_graph import Builder, Operand, Size, per_axis, shape, value


def _max_pool(
    b: Builder,
    x: Operand,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> Result:
    rank = len(shape(x)) - 2
    kernel = per_axis(kernel, rank)
    pads = per_axis(padding, rank) * 2
    options = {"kernel_shape": kernel, "strides": per_axis(stride, rank) or kernel, "pads": pads}
    return b.op("MaxPool", x, **options, dilations=per_axis(dilation, rank), ceil_mode=int(ceil_mode))


def _max_pool_with_indices(b: Builder, x: Operand, *arguments: object) -> Result:
    """The indices are not made; asking for them ends in an error where they are used."""
    result = _max_pool(b, x, *arguments)  # type: ignore[arg-type]
    assert not isinstance(result, tuple)  # noqa: S101 - for the type checker
    return (result,)


def _avg_pool(
    b: Builder,
    x: Operand,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None = None,
) -> Result:
    rank = len(shape(x)) - 2
    kernel = per_axis(kernel, rank)
    if divisor is not None:
        raise b.refuse("an average pool with divisor_override")
    pads = per_axis(padding, rank) * 2
    options = {"kernel_shape": kernel, "strides": per_axis(stride, rank) or kernel, "pads": pads}
    return b.op(
        "AveragePool", x, **options, ceil_mode=int(ceil_mode), count_include_pad=int(count_include_pad and any(pads))
    )


def _adaptive_avg_pool(b: Builder, x: Operand, wanted: Sequence[Size]) -> Result:
    sizes, wanted = _adaptive(x, wanted)
    if all(want == 1 for want in wanted):
        return b.op("GlobalAveragePool", x)
    kernel = _divided(sizes, wanted)
    if kernel is not None:
        return b.op("AveragePool", x, kernel_shape=kernel, strides=kernel)
    if not all(isinstance(size, int) for size in (*sizes, *wanted)) or len(sizes) > 2:  # noqa: PLR2004 - the products
        raise b.refuse(f"an adaptive average pool from {tuple(sizes)} to {tuple(wanted)}")
    y = b.op("MatMul", x, b.constant(_windows(int(sizes[-1]), int(wanted[-1])).T.tolist(), value(x).dtype))
    if len(sizes) == 1:
        return y
    return b.op("MatMul", b.constant(_windows(int(sizes[0]), int(wanted[0])).tolist(), value(x).dtype), y)


def _adaptive_max_pool(b: Builder, x: Operand, wanted: Sequence[Size]) -> Result:
    """torch's operator returns the indices too; they are not made."""
    sizes, wanted = _adaptive(x, wanted)
    if all(want == 1 for want in wanted):
        return (b.op("GlobalMaxPool", x),)
    kernel = _divided(sizes, wanted)
    if kernel is None:
        raise b.refuse(f"an adaptive max pool from {tuple(sizes)} to {tuple(wanted)}")
    return (b.op("MaxPool", x, kernel_shape=kernel, strides=kernel),)


def _adaptive(x: Operand, wanted: Sequence[Size]) -> tuple[list[Size], list[Size]]:
    rank = len(shape(x)) - 2
    return list(shape(x)[2:]), list(wanted) * rank if len(wanted) == 1 else list(wanted)


def _divided(sizes: Sequence[Size], wanted: Sequence[Size]) -> list[int] | None:
    """The kernel of an adaptive pool whose windows are all alike."""
    if not all(isinstance(size, int) for size in (*sizes, *wanted)):
        return None
    pairs = [(int(size), int(want)) for size, want in zip(sizes, wanted, strict=True)]
    return [size // want for size, want in pairs] if all(size % want == 0 for size, want in pairs) else None


def _windows(size: int, wanted: int) -> torch.Tensor:
    """[wanted, size]: row i averages from floor(i·size/wanted) to ceil((i+1)·size/wanted)."""
    matrix = torch.zeros(wanted, size)
    for i in range(wanted):
        begin, end = i * size // wanted, -(-(i + 1) * size // wanted)
        matrix[i, begin:end] = 1 / (end - begin)
    return matrix


def _of(n: int, translate: Translate) -> Translate:
    """`translate` for [N, C, …] with `n` axes behind: torch takes them without N as well, ONNX does not."""

    def checked(b: Builder, x: Operand, *arguments: object) -> Result:
        if len(shape(x)) != n + len(("N", "C")):
            raise b.refuse(f"a pool of {n} axes on {len(shape(x))} in all")
        return translate(b, x, *arguments)

    return checked


TABLE: dict[str, Translate] = {
    **{f"max_pool{n}d": _of(n, _max_pool) for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices": _of(n, _max_pool_with_indices) for n in (1, 2, 3)},
    **{f"avg_pool{n}d": _of(n, _avg_pool) for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": _of(n, _adaptive_avg_pool) for n in (1, 2, 3)},
    **{f"_adaptive_avg_pool{n}d": _of(n, _adaptive_avg_pool) for n in (2, 3)},
    **{f"adaptive_max_pool{n}d": _of(n, _adaptive_max_pool) for n in (1, 2, 3)},
}
