"""Blocks of channels mixed by a small matrix, then a convolution of as many groups as blocks: of each term of a sum of
Kronecker products, the nearest to the kernel. Before training it is the sum itself: hypercomplex convolutions.

Van Loan and Pitsianis, Approximation with Kronecker Products, 1993; Grassucci et al., PHNNs, TNNLS 2022.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from convkit.compress.form import Conv, Form, Piece, Ranks, Trained, along, pointwise, sides

_BLOCKS = 4
"""Of channels, or fewer where they do not part into so many: quaternions have four."""


def _blocks(conv: Conv) -> int:
    made, read, _ = sides(conv)
    return math.gcd(made, read, _BLOCKS)


def _full(conv: Conv) -> Ranks:
    made, read, kernel = sides(conv)
    blocks = _blocks(conv) ** 2
    return (min(blocks, made * read * math.prod(kernel) // blocks),)


def _parameters(conv: Conv, ranks: Ranks) -> int:
    made, read, kernel = sides(conv)
    return conv.groups * ranks[0] * (read * read + made * read * math.prod(kernel) // _blocks(conv))


def _rows(weight: Tensor, blocks: int) -> Tensor:
    """[groups, blocks x blocks, what is in one]: Kronecker products are its matrices of rank one."""
    groups, made, read, *kernel = weight.shape
    parted = weight.reshape(groups, blocks, made // blocks, blocks, read // blocks, *kernel).transpose(2, 3)
    return parted.flatten(3).flatten(1, 2)


def _terms(weight: Tensor, blocks: int, rank: int) -> tuple[Tensor, Tensor]:
    """Of a weight [groups, out, in, *kernel]: A [groups, rank, blocks, blocks], F [groups, rank, out / blocks, in /
    blocks, *kernel] whose Kronecker products' sum is nearest to it.
    """
    groups, made, read, *kernel = weight.shape
    u, s, v = torch.linalg.svd(_rows(weight, blocks), full_matrices=False)
    root = s[:, :rank].sqrt()
    mixed = (u[..., :rank] * root[:, None]).mT.reshape(groups, rank, blocks, blocks)
    return mixed, (v[:, :rank] * root[..., None]).reshape(groups, rank, made // blocks, read // blocks, *kernel)


def _spectra(weight: Tensor) -> list[Tensor]:
    blocks = math.gcd(*weight.shape[1:3], _BLOCKS)
    return [torch.linalg.svdvals(_rows(weight, blocks)).square().sum(0).sqrt()]


def _factor(conv: Conv, weight: Tensor, ranks: Ranks) -> list[Piece]:
    blocks, size = _blocks(conv), len(conv.kernel_size)
    mixed, filters = _terms(weight, blocks, ranks[0])
    same = torch.eye(filters.shape[3], dtype=weight.dtype)
    inside = torch.einsum("grab,ij->garibj", mixed, same).flatten(4).flatten(1, 3)
    beside = filters.transpose(1, 2).flatten(2, 3)  # [groups, out / blocks, rank x in / blocks, *kernel]
    outside = beside[:, None].expand(-1, blocks, *beside.shape[1:]).flatten(0, 2)
    return [pointwise(inside, size), along(conv, outside, range(size), conv.groups * blocks)]


class _Sum(nn.Module):
    """The weight [out, in / groups, *kernel] of the parameters A and F of `_terms`."""

    def __init__(self, conv: Conv, ranks: Ranks) -> None:
        super().__init__()
        self.groups, self.blocks, self.rank = conv.groups, _blocks(conv), ranks[0]

    def forward(self, mixed: Tensor, filters: Tensor) -> Tensor:
        parted = torch.einsum("grab,groi...->gaobi...", mixed, filters)
        return parted.flatten(3, 4).flatten(0, 2)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """What comes nearest to `weight`."""
        parted = weight.reshape(self.groups, -1, *weight.shape[1:])
        return _terms(parted, self.blocks, self.rank)


def _learnt(conv: Conv, ranks: Ranks) -> int:
    made, read, kernel = sides(conv)
    blocks = _blocks(conv) ** 2
    return conv.groups * ranks[0] * (blocks + made * read * math.prod(kernel) // blocks)


PART = Form(
    lambda conv: _blocks(conv) > 1,
    _full,
    _parameters,
    _factor,
    _spectra,
    Trained(_learnt, _Sum),
)
