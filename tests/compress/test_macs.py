"""MACs: torch's own FLOP counter and numpy's einsum are the oracles."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from convkit.compress import macs, ops
from convkit.compress.graph import _LAYERS

Shape = tuple[int, ...]


def _counted(function: object, *tensors: Tensor, **attributes: object) -> tuple[int, Shape]:
    """torch's count of MACs and the result's shape."""
    with FlopCounterMode(display=False) as counter:
        result = function(*tensors, **attributes)  # type: ignore[operator]
    return counter.get_total_flops() // 2, tuple(result.shape)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2))
def test_convolutions_of_any_rank_and_grouping(rank: int, group: int, c: int, m: int, kernel: int, stride: int) -> None:
    x, w = torch.zeros(2, group * c, *[7] * rank), torch.zeros(group * m, c, *[kernel] * rank)
    attributes = {"group": group, "strides": [stride] * rank, "pads": [1] * 2 * rank}
    wanted, shape = _counted(ops.function("Conv"), x, w, **attributes)
    assert macs.count("Conv", (x.shape, w.shape), shape, attributes) == wanted


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))
def test_transposed_convolutions(rank: int, group: int, c: int, m: int, kernel: int) -> None:
    x, w = torch.zeros(2, group * c, *[5] * rank), torch.zeros(group * c, m, *[kernel] * rank)
    functions = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
    wanted, shape = _counted(functions[rank], x, w, stride=2, groups=group)
    assert macs.count("ConvTranspose", (x.shape, w.shape), shape, {"group": group}) == wanted


@given(st.lists(st.integers(1, 3), max_size=2), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
def test_products(batch: list[int], n: int, k: int, m: int) -> None:
    a, b = torch.zeros(*batch, n, k), torch.zeros(k, m)
    wanted, shape = _counted(torch.matmul, a, b)
    assert macs.count("MatMul", (a.shape, b.shape), shape, {}) == wanted
    wanted, shape = _counted(ops.function("Gemm"), torch.zeros(k, n), torch.zeros(m, k), transA=1, transB=1)
    assert macs.count("Gemm", ((k, n), (m, k)), shape, {"transA": 1, "transB": 1}) == wanted == n * k * m


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", ((2, 3), (3, 4))),
        ("bhqd,bhkd->bhqk", ((2, 3, 4, 5), (2, 3, 6, 5))),
        ("...ij,jk->...ik", ((7, 2, 3), (3, 4))),
        ("...ij,...jk->...ik", ((7, 2, 3), (7, 3, 4))),
    ],
)
def test_einsum_against_numpys_own_count(equation: str, shapes: tuple[Shape, ...]) -> None:
    arrays = [np.zeros(shape) for shape in shapes]
    output = np.einsum(equation, *arrays).shape
    text = np.einsum_path(equation.replace("...", "z"), *arrays, optimize=False)[1]
    naive = float(next(line for line in text.splitlines() if "Naive FLOP count" in line).split(":")[1])
    # numpy counts a multiplication and an addition for each; its figure is printed with four digits.
    assert macs.count("Einsum", shapes, output, {"equation": equation}) == pytest.approx(naive / 2, rel=1e-3)


def test_recurrent_layers() -> None:
    steps, batch, width, hidden = 5, 2, 3, 4
    shapes = ((steps, batch, width), (1, 4 * hidden, width), (1, 4 * hidden, hidden))
    assert macs.count("LSTM", shapes, (steps, 1, batch, hidden), {}) == steps * batch * 4 * hidden * (width + hidden)


def test_what_multiplies_nothing() -> None:
    for operator in ("Relu", "Add", "MaxPool", "BatchNormalization", "Concat"):
        assert macs.count(operator, ((1, 2),), (1, 2), {}) == 0


def test_every_layer_of_the_graph_is_known() -> None:
    products = {name for _, name in _LAYERS} - {"BatchNormalization"}
    shapes = ((1, 2, 4, 4), (2, 2, 1, 1))
    assert all(macs.count(name, shapes, (1, 2, 4, 4), {}) >= math.prod((1, 2)) for name in products)
