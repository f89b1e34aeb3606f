"""A 1x1 convolution, one along each axis, and a 1x1 behind: a tensor train of input, axes and output.

Oseledets, Tensor-Train Decomposition, SIAM J. Sci. Comput. 2011, algorithm 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from convkit.compress.form import Conv, Form, Piece, Ranks, along, pointwise, sides


def _full(conv: Conv) -> Ranks:
    made, read, kernel = sides(conv)
    sizes = (read, *kernel, made)
    return tuple(min(math.prod(sizes[:cut]), math.prod(sizes[cut:])) for cut in range(1, len(sizes)))


def _parameters(conv: Conv, ranks: Ranks) -> int:
    made, read, kernel = sides(conv)
    inner = sum(one * size * other for one, size, other in zip(ranks, kernel, ranks[1:], strict=False))
    return conv.groups * (read * ranks[0] + inner + ranks[-1] * made)


def _ordered(weight: Tensor) -> Tensor:
    """[groups, in, *kernel, out]."""
    return weight.movedim(1, -1)


def _spectra(weight: Tensor) -> list[Tensor]:
    ordered = _ordered(weight)
    cuts = range(1, ordered.ndim - 1)
    return [torch.linalg.svdvals(ordered.flatten(1, cut).flatten(2)).square().sum(0).sqrt() for cut in cuts]


def _factor(conv: Conv, weight: Tensor, ranks: Ranks) -> list[Piece]:
    ordered, groups = _ordered(weight), conv.groups
    cores, rest, before = [], ordered.flatten(1), 1
    for size, rank in zip(ordered.shape[1:], ranks, strict=False):
        u, s, v = torch.linalg.svd(rest.reshape(groups, before * size, -1), full_matrices=False)
        kept = min(rank, s.shape[1])
        cores.append(u[..., :kept].reshape(groups, before, size, kept))
        rest, before = s[:, :kept, None] * v[:, :kept], kept
    first, *inner = cores
    chain = [pointwise(first[:, 0].mT, len(conv.kernel_size))]
    for axis, core in enumerate(inner):
        made = core.permute(0, 3, 1, 2).reshape(-1, core.shape[1], core.shape[2])
        chain.append(along(conv, made, [axis], groups))
    return [*chain, pointwise(rest.reshape(groups, before, -1).mT, len(conv.kernel_size))]


PART = Form(lambda conv: min(sides(conv)[:2]) > 1, _full, _parameters, _factor, _spectra)
