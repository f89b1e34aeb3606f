"""Views, permutations, joins and splits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from convkit.compress.sources._aten import Result, Translate
from convkit.compress.sources._aten_graph import Builder, Operand, Size, shape, value
from convkit.compress.sources._aten_size import same


def _pass(_: Builder, x: Operand, *__: object) -> Result:
    """Nothing happens to the contents: copies, memory formats, dropout in evaluation mode."""
    return x


def _dropout(b: Builder, x: Operand, p: float, train: bool) -> Result:
    if train and p > 0:
        raise b.refuse("a dropout in training mode (call model.eval() before export)")
    return x


def _to(b: Builder, x: Operand, *_: object) -> Result:
    return b.cast(x, b.val.dtype)


def reshape(b: Builder, x: Operand, wanted: Sequence[Size]) -> Operand:
    """`x` in the shape `wanted`, in the simplest form that holds for every free size."""
    given = shape(x)
    if len(given) == len(wanted) and all(map(same, given, wanted)):
        return x
    rest = wanted[-1] if len(wanted) == 2 else None  # noqa: PLR2004 - a matrix
    if isinstance(rest, int) and len(given) > 2 and same(given[0], wanted[0]):  # noqa: PLR2004 - more than a matrix
        return b.op("Flatten", x, axis=1)
    return b.op("Reshape", x, _target(b, given, wanted))


def _target(b: Builder, given: Sequence[Size], wanted: Sequence[Size]) -> Operand:
    """0 copies the input's size at the same place, -1 is what is left; two more free sizes must be computed."""
    copied = [i < len(given) and same(size, given[i]) for i, size in enumerate(wanted)]
    free = [i for i, size in enumerate(wanted) if not isinstance(size, int) and not copied[i]]
    if len(free) > 1:
        return b.sizes(wanted)
    marks = [-1 if i in free else size if isinstance(size, int) else 0 for i, size in enumerate(wanted)]
    return b.integers(*(int(mark) for mark in marks))


def _view(b: Builder, x: Operand, *_: object) -> Result:
    """view, reshape, flatten, unflatten …: all of them say what the result's shape is."""
    return reshape(b, x, b.val.shape)


def _view_dtype(b: Builder, *_: object) -> Result:
    raise b.refuse("a view of the same bytes as another type")


def _unsqueeze(b: Builder, x: Operand, axis: int) -> Result:
    return b.op("Unsqueeze", x, b.integers(axis % b.val.ndim))


def _squeeze(b: Builder, x: Operand, axes: int | Sequence[int] | None = None) -> Result:
    sizes = shape(x)
    listed = range(len(sizes)) if axes is None else [axes] if isinstance(axes, int) else axes
    dropped = [axis % len(sizes) for axis in listed if same(sizes[axis], 1)]
    return b.op("Squeeze", x, b.integers(*dropped)) if dropped else x


def _permute(b: Builder, x: Operand, order: Sequence[int]) -> Result:
    perm = [axis % len(order) for axis in order]
    return x if perm == sorted(perm) else b.op("Transpose", x, perm=perm)


def _transpose(b: Builder, x: Operand, one: int, other: int) -> Result:
    order = list(range(len(shape(x))))
    order[one], order[other] = order[other], order[one]
    return _permute(b, x, order)


def _t(b: Builder, x: Operand) -> Result:
    return _permute(b, x, list(reversed(range(len(shape(x))))))


def _matrix_transpose(b: Builder, x: Operand) -> Result:
    return _transpose(b, x, -2, -1)


def _movedim(b: Builder, x: Operand, source: int | Sequence[int], target: int | Sequence[int]) -> Result:
    rank = len(shape(x))
    sources, targets = ([v % rank for v in ([a] if isinstance(a, int) else a)] for a in (source, target))
    rest = iter(axis for axis in range(rank) if axis not in sources)
    placed = dict(zip(targets, sources, strict=True))
    return _permute(b, x, [placed[axis] if axis in placed else next(rest) for axis in range(rank)])


def _cat(b: Builder, tensors: Sequence[Operand], axis: int = 0) -> Result:
    """torch skips empty vectors, whatever the others' rank."""
    kept = [b.cast(x, b.val.dtype) for x in tensors if shape(x) != (0,)]
    return kept[0] if len(kept) == 1 else b.op("Concat", *kept, axis=axis % b.val.ndim)


def _stack(b: Builder, tensors: Sequence[Operand], axis: int = 0) -> Result:
    axis %= b.val.ndim
    parts = [b.op("Unsqueeze", b.cast(x, b.val.dtype), b.integers(axis)) for x in tensors]
    return b.op("Concat", *parts, axis=axis)


def _split(b: Builder, x: Operand, *arguments: object) -> Result:
    """chunk, split, split_with_sizes, tensor_split: the results' own sizes say where."""
    axis = _split_axis(arguments)
    results: Sequence[Tensor] = b.val
    sizes = [result.shape[axis] for result in results]
    if len(sizes) == 1:
        return (x,)
    split = b.op("Split", x, b.sizes(sizes), axis=axis % len(shape(x)))
    return tuple(b.pick(split, i) for i in range(len(sizes)))


def _split_axis(arguments: Sequence[object]) -> int:
    axis = arguments[1] if len(arguments) > 1 else 0
    return axis if isinstance(axis, int) else 0


def _unbind(b: Builder, x: Operand, axis: int = 0) -> Result:
    axis %= len(shape(x))
    count = len(b.val)
    split = b.op("Split", x, b.integers(*[1] * count), axis=axis)
    return tuple(b.op("Squeeze", b.pick(split, i), b.integers(axis)) for i in range(count))


def _expand(b: Builder, x: Operand, *_: object) -> Result:
    """Sizes that stay are 1 in ONNX's Expand, which broadcasts both ways."""
    given, wanted = shape(x), tuple(b.val.shape)
    kept = (0,) * (len(wanted) - len(given)) + given
    target = [1 if same(have, want) else want for have, want in zip(kept, wanted, strict=True)]
    if len(given) == len(wanted) and all(size == 1 for size in target):
        return x
    return b.op("Expand", x, b.sizes(target))


def _repeat(b: Builder, x: Operand, repeats: Sequence[Size]) -> Result:
    more = len(repeats) - len(shape(x))
    if more:
        x = b.op("Unsqueeze", x, b.integers(*range(more)))
    return b.op("Tile", x, b.sizes(repeats))


def _repeat_interleave(b: Builder, x: Operand, repeats: int, axis: int | None = None, *_: object) -> Result:
    """Each element `repeats` times in a row: along a new axis behind, then joined."""
    if axis is None or not isinstance(repeats, int):
        raise b.refuse("a repeat_interleave without an axis")
    axis %= len(shape(x))
    wide = b.op("Unsqueeze", x, b.integers(axis + 1))
    counts = [1] * (len(shape(x)) + 1)
    counts[axis + 1] = repeats
    tiled = b.op("Tile", wide, b.integers(*counts))
    return b.op("Reshape", tiled, b.sizes(tuple(b.val.shape)))


def _check_images(b: Builder, x: Operand) -> None:
    if len(shape(x)) != len("NCHW"):
        raise b.refuse(f"a shuffle of pixels on {len(shape(x))} axes")


def _pixel_shuffle(b: Builder, x: Operand, factor: int) -> Result:
    _check_images(b, x)
    return b.op("DepthToSpace", x, blocksize=factor, mode="CRD")


def _pixel_unshuffle(b: Builder, x: Operand, factor: int) -> Result:
    """SpaceToDepth puts the block before the channel, torch behind it: so the blocks are cut out by Reshape."""
    _check_images(b, x)
    batch, channels, height, width = shape(x)
    inner = (batch, channels, height // factor, factor, width // factor, factor)
    blocks = b.op("Reshape", x, _target(b, (), inner) if _free(inner) <= 1 else b.sizes(inner))
    order = b.op("Transpose", blocks, perm=[0, 1, 3, 5, 2, 4])
    wanted = tuple(b.val.shape)
    return b.op("Reshape", order, b.sizes(wanted) if _free(wanted) > 1 else _target(b, (), wanted))


def _free(sizes: Sequence[Size]) -> int:
    return sum(isinstance(size, torch.SymInt) for size in sizes)


def _channel_shuffle(b: Builder, x: Operand, groups: int) -> Result:
    batch, channels, *places = shape(x)
    parts = (batch, groups, channels // groups, *places)
    split = b.op("Reshape", x, _target(b, shape(x), parts))
    turned = b.op("Transpose", split, perm=[0, 2, 1, *range(3, len(parts))])
    return b.op("Reshape", turned, _target(b, (batch,), tuple(value(x).shape)))


TABLE: dict[str, Translate] = {
    **dict.fromkeys(
        ("contiguous", "clone", "alias", "detach", "lift_fresh_copy", "lift_fresh", "positive", "requires_grad"), _pass
    ),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"), _dropout),
    **dict.fromkeys(("to", "_to_copy", "type_as", "float", "half"), _to),
    **dict.fromkeys(
        ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as", "_reshape_alias"), _view
    ),
    "view.dtype": _view_dtype,
    "unsqueeze": _unsqueeze, "squeeze": _squeeze, "permute": _permute, "transpose": _transpose,
    "swapaxes": _transpose, "swapdims": _transpose, "t": _t, "numpy_T": _t, "mT": _matrix_transpose,
    "movedim": _movedim, "moveaxis": _movedim, "cat": _cat, "concat": _cat, "stack": _stack,
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split"), _split),
    "unbind": _unbind, "expand": _expand, "expand_as": _expand, "broadcast_to": _expand,
    "repeat": _repeat, "repeat_interleave.self_int": _repeat_interleave,
    "pixel_shuffle": _pixel_shuffle, "pixel_unshuffle": _pixel_unshuffle, "channel_shuffle": _channel_shuffle,
}  # fmt: skip
