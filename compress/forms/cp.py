"""A 1x1 convolution, one along each axis of every channel for itself, and a 1x1 behind: a sum of outer products.

Lebedev et al., Speeding-up Convolutional Neural Networks Using Fine-tuned CP-Decomposition, ICLR 2015. Alternating
least squares are kept from diverging by a small weight on the factors' size.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from convkit.compress.form import Conv, Form, Piece, Ranks, along, pointwise, sides

_ROUNDS, _RIDGE = 100, 1e-9


def _full(conv: Conv) -> Ranks:
    """The product of all sizes but the largest: one term for each row along that."""
    made, read, kernel = sides(conv)
    sizes = (made, read, *kernel)
    return (math.prod(sizes) // max(sizes),)


def _parameters(conv: Conv, ranks: Ranks) -> int:
    made, read, kernel = sides(conv)
    return conv.groups * ranks[0] * (made + read + sum(kernel))


def _factor(conv: Conv, weight: Tensor, ranks: Ranks) -> list[Piece]:
    size = len(conv.kernel_size)
    out, read, *kernels = outer_products(weight, ranks[0])
    chain = [pointwise(read.mT, size)]
    for axis, kernel in enumerate(kernels):
        taps = kernel.mT.reshape(-1, 1, kernel.shape[1])
        chain.append(along(conv, taps, [axis], len(taps)))
    return [*chain, pointwise(out, size)]


def outer_products(tensors: Tensor, rank: int) -> list[Tensor]:
    """[batch, size, rank] for each axis behind the batch: sums of `rank` outer products near `tensors`, of one length
    along every axis.
    """
    if rank >= math.prod(tensors.shape[1:]) // max(tensors.shape[1:]):
        return _rows(tensors)
    unfolded = [tensors.movedim(axis, 1).flatten(2) for axis in range(1, tensors.ndim)]
    factors = [_begun(rows, rank, seed) for seed, rows in enumerate(unfolded)]
    for _ in range(_ROUNDS):
        for axis, rows in enumerate(unfolded):
            others = [factor for place, factor in enumerate(factors) if place != axis]
            gram = functools.reduce(torch.mul, [other.mT @ other for other in others])
            ridge = _RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(rank, dtype=rows.dtype)
            factors[axis] = torch.linalg.solve(gram + ridge, (rows @ _crossed(others)).mT).mT
        factors = _evened(factors)
    return factors


def _begun(rows: Tensor, rank: int, seed: int) -> Tensor:
    """The directions of `rows` [batch, size, …], and random ones where there are not so many."""
    own = torch.linalg.svd(rows, full_matrices=False)[0][..., :rank]
    drawn = torch.randn(
        own.shape[1], rank - own.shape[2], generator=torch.Generator().manual_seed(seed), dtype=rows.dtype
    )
    return torch.cat([own, drawn.expand(len(own), -1, -1)], 2)


def _crossed(factors: list[Tensor]) -> Tensor:
    """The columns' outer products, flattened: [batch, product of sizes, rank]."""
    made = factors[0]
    for factor in factors[1:]:
        made = (made[:, :, None] * factor[:, None]).flatten(1, 2)
    return made


def _evened(factors: list[Tensor]) -> list[Tensor]:
    """With columns of one length along every axis, so that none grows while another shrinks."""
    lengths = [factor.norm(dim=1, keepdim=True).clamp(min=1e-30) for factor in factors]
    even = math.prod(lengths) ** (1 / len(factors))
    return [factor / length * even for factor, length in zip(factors, lengths, strict=True)]


def _rows(tensors: Tensor) -> list[Tensor]:
    """Exactly: a term for each row along the largest axis."""
    sizes = tensors.shape[1:]
    longest = max(range(len(sizes)), key=sizes.__getitem__)
    others = [axis for axis in range(len(sizes)) if axis != longest]
    rows = tensors.movedim(1 + longest, 1).flatten(2)
    places = torch.unravel_index(torch.arange(rows.shape[2]), [sizes[axis] for axis in others])
    made: list[Tensor] = [rows] * len(sizes)
    for axis, place in zip(others, places, strict=True):
        hot = torch.nn.functional.one_hot(place, sizes[axis]).T.to(tensors.dtype)
        made[axis] = hot.expand(len(tensors), -1, -1)
    return made


PART = Form(lambda conv: min(sides(conv)[:2]) > 1, _full, _parameters, _factor)
