"""A kernel along its first axis, then one along the others, with as many channels between as the rank.

Jaderberg et al., Speeding up Convolutional Neural Networks with Low Rank Expansions, BMVC 2014, scheme 2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from convkit.compress.form import Conv, Form, Piece, Ranks, along, sides


def _fits(conv: Conv) -> bool:
    return sum(size > 1 for size in conv.kernel_size) > 1


def _full(conv: Conv) -> Ranks:
    made, read, (first, *rest) = sides(conv)
    return (min(read * first, made * math.prod(rest)),)


def _parameters(conv: Conv, ranks: Ranks) -> int:
    made, read, (first, *rest) = sides(conv)
    return conv.groups * ranks[0] * (read * first + made * math.prod(rest))


def _matrix(weight: Tensor) -> Tensor:
    """[groups, in x first axis, out x other axes]."""
    return weight.permute(0, 2, 3, 1, *range(4, weight.ndim)).flatten(3).flatten(1, 2)


def _spectra(weight: Tensor) -> list[Tensor]:
    return [torch.linalg.svdvals(_matrix(weight)).square().sum(0).sqrt()]


def _factor(conv: Conv, weight: Tensor, ranks: Ranks) -> list[Piece]:
    groups, made, read, size, *rest = weight.shape
    u, s, v = torch.linalg.svd(_matrix(weight), full_matrices=False)
    (rank,), root = ranks, s[:, : ranks[0]].sqrt()
    first = (u[..., :rank] * root[:, None]).mT.reshape(groups * rank, read, size)
    last = (root[..., None] * v[:, :rank]).reshape(groups, rank, made, *rest).transpose(1, 2)
    others = range(1, len(conv.kernel_size))
    return [
        along(conv, first, [0], groups),
        along(conv, last.reshape(groups * made, rank, *rest), others, groups),
    ]


PART = Form(_fits, _full, _parameters, _factor, _spectra)
