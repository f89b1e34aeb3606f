"""Few channels between: the kernel to as many as the rank, and a 1x1 convolution behind it.

Zhang et al., Accelerating Very Deep Convolutional Networks for Classification and Detection, 2016, section 3.1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from convkit.compress.form import Conv, Form, Piece, Ranks, along, pointwise, sides


def _full(conv: Conv) -> Ranks:
    made, read, kernel = sides(conv)
    return (min(made, read * math.prod(kernel)),)


def _parameters(conv: Conv, ranks: Ranks) -> int:
    made, read, kernel = sides(conv)
    return conv.groups * ranks[0] * (made + read * math.prod(kernel))


def _spectra(weight: Tensor) -> list[Tensor]:
    return [torch.linalg.svdvals(weight.flatten(2)).square().sum(0).sqrt()]


def _factor(conv: Conv, weight: Tensor, ranks: Ranks) -> list[Piece]:
    u, s, v = torch.linalg.svd(weight.flatten(2), full_matrices=False)
    root = s[:, : ranks[0]].sqrt()
    first = (root[..., None] * v[:, : ranks[0]]).reshape(-1, *weight.shape[2:])
    axes = range(len(conv.kernel_size))
    return [along(conv, first, axes, conv.groups), pointwise(u[..., : ranks[0]] * root[:, None], len(axes))]


PART = Form(lambda conv: sides(conv)[0] > 1, _full, _parameters, _factor, _spectra)
