"""Filters of one way each: what an output reads of channels, of rows and of columns, as outer products of three.

A priori compression of convolutional neural networks for wave simulators, 2023: 3-way kernels, and 2-way ones of single
channels, as one-way filters. Of more than one term a last convolution of ones takes the sum.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from convkit.compress.form import Conv, Form, Piece, Ranks, along, pointwise, sides
from convkit.compress.forms.cp import outer_products


def _full(conv: Conv) -> Ranks:
    _, read, kernel = sides(conv)
    sizes = (read, *kernel)
    return (math.prod(sizes) // max(sizes),)


def _parameters(conv: Conv, ranks: Ranks) -> int:
    made, read, kernel = sides(conv)
    (rank,) = ranks
    inputs = read if read > 1 else 0
    return conv.groups * made * (rank * (inputs + sum(kernel)) + (rank if rank > 1 else 0))


def _factor(conv: Conv, weight: Tensor, ranks: Ranks) -> list[Piece]:
    (rank,), size = ranks, len(conv.kernel_size)
    groups, made = weight.shape[:2]
    read, *kernels = (factor.mT for factor in outer_products(weight.flatten(0, 1), rank))  # [outputs, rank, size]
    if weight.shape[2] > 1:
        chain, first = [pointwise(read.reshape(groups, made * rank, -1), size)], groups * made * rank
    else:  # of single channels: the first axis makes as many of each as there are terms
        chain, first, kernels[0] = [], groups, kernels[0] * read
    for axis, kernel in enumerate(kernels):
        taps = kernel.reshape(-1, 1, kernel.shape[2])
        chain.append(along(conv, taps, [axis], len(taps) if axis else first))
    if rank > 1:
        chain.append(pointwise(torch.ones(groups * made, 1, rank, dtype=weight.dtype), size))
    return chain


PART = Form(lambda conv: max(sides(conv)[1:2]) > 0, _full, _parameters, _factor)
