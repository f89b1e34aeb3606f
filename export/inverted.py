"""Blocks of a grouped convolution of width 8 between or before two 1x1 ones: what kernels of them must find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convkit.export.paired import GROUP
from convkit.export.pattern import attributes

if TYPE_CHECKING:
    import numpy as np

    from convkit.export.pattern import Match, Network

_MOST = 128
"""Channels: of more, a program cannot hold the sums."""


@dataclass(frozen=True, slots=True)
class Block:
    """Its constants by their names in the pattern, and the type `kind` of its weights in the file."""

    constants: dict[str, np.ndarray]
    kind: str


def block(network: Network, match: Match, made: Sequence[str]) -> Block | None:
    """The block of two-dimensional images that `match` is, stride 1 and the same size; None where it is another.

    Weights are `$wide` [r C, C, 1, 1], `$narrow` [C, r C, 1, 1] and `$grouped`; `made`: the tensors that the
    convolutions make, the grouped one's first.
    """
    held = {name[1:]: network.constant(tensor) for name, tensor in match.bound.items() if name[0] == "$"}
    known = {name: array for name, array in held.items() if array is not None and array.dtype == "float32"}
    makers = [network.maker(match.bound[name]) for name in made]
    if len(known) < len(held) or not all(makers):
        return None
    first, *others = (attributes(maker) for maker in makers if maker is not None)
    plain = all(each.get(name, [1, 1]) == [1, 1] for each in (first, *others) for name in ("strides", "dilations"))
    padded = any(any(each.get("pads", [0])) for each in others)
    if not plain or padded or not _is_grouped(known["grouped"], first.get("pads", [0]), first.get("group", 1)):
        return None
    wide, narrow = known["wide"], known["narrow"]
    channels, many = len(narrow), len(wide)
    if wide.shape[1:] != (channels, 1, 1) or narrow.shape[1:] != (many, 1, 1) or channels > _MOST:
        return None
    kinds = {network.dtype(match.bound[f"${name}"]) for name in ("wide", "narrow", "grouped")}
    return Block(known, kinds.pop()) if len(kinds) == 1 else None  # a kernel multiplies in one type


def _is_grouped(weight: np.ndarray, pads: Sequence[int], groups: int) -> bool:
    """Whether it is square, of width 8, and keeps the size."""
    if weight.ndim != 4 or weight.shape[1] != GROUP or weight.shape[2] != weight.shape[3]:  # noqa: PLR2004 - images
        return False
    side = weight.shape[2]
    return bool(side % 2) and list(pads) == [side // 2] * 4 and groups * GROUP == len(weight)
