"""A 1x1 convolution to fewer channels, the kernel between these, and a 1x1 convolution back.

Kim et al., Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications, ICLR 2016.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from convkit.compress.form import Conv, Form, Piece, Ranks, along, pointwise, sides

_ROUNDS = 100


def _full(conv: Conv) -> Ranks:
    made, read, kernel = sides(conv)
    taps = math.prod(kernel)
    return min(read, made * taps), min(made, read * taps)


def _parameters(conv: Conv, ranks: Ranks) -> int:
    made, read, kernel = sides(conv)
    return conv.groups * (read * ranks[0] + ranks[0] * ranks[1] * math.prod(kernel) + ranks[1] * made)


def _spectra(weight: Tensor) -> list[Tensor]:
    unfolded = (weight.transpose(1, 2).flatten(2), weight.flatten(2))
    return [torch.linalg.svdvals(one).square().sum(0).sqrt() for one in unfolded]


def _factor(conv: Conv, weight: Tensor, ranks: Ranks) -> list[Piece]:
    from tensorly import set_backend
    from tensorly.decomposition import partial_tucker

    set_backend("numpy")
    inside, outside, cores = [], [], []
    for own in weight.numpy():
        (core, (out, read)), _ = partial_tucker(own, rank=[ranks[1], ranks[0]], modes=[0, 1], n_iter_max=_ROUNDS)
        inside.append(torch.from_numpy(read.copy()).mT)
        outside.append(torch.from_numpy(out.copy()))
        cores.append(torch.from_numpy(core.copy()))
    axes, size = range(len(conv.kernel_size)), len(conv.kernel_size)
    return [
        pointwise(torch.stack(inside), size),
        along(conv, torch.cat(cores), axes, conv.groups),
        pointwise(torch.stack(outside), size),
    ]


PART = Form(
    lambda conv: min(sides(conv)[:2]) > 1 and math.prod(conv.kernel_size) > 1, _full, _parameters, _factor, _spectra
)
