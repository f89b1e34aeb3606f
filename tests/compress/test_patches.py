"""A layer as one matrix product: at any of its positions, its patches times its rows are what the operator makes."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx

from convkit.compress import ops, patches
from convkit.compress.moments import Moments


def layer(operator: str, x: Tensor, weight: Tensor, **attributes: Any) -> tuple[fx.Node, Tensor]:
    """A node of `operator` and what it makes of `x`."""
    graph = fx.Graph()
    node = graph.call_function(
        ops.function(operator), (graph.placeholder("x"), graph.placeholder("w")), dict(attributes)
    )
    return node, ops.function(operator)(x, weight, **attributes)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def check(node: fx.Node, x: Tensor, y: Tensor, weight: Tensor, most: int) -> patches.Patches:
    found, rows = patches.of(node, x, y, most, generator()), patches.rows(node, weight)
    torch.testing.assert_close(found.inputs @ rows.mT, found.outputs, rtol=1e-4, atol=1e-4)
    assert torch.equal(patches.laid_out(node, rows, weight), weight)
    return found


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(0, 2), st.integers(1, 2),
    st.sampled_from([1, 2, 4]), st.booleans(), st.integers(1, 40),
)  # fmt: skip
def test_convolutions(
    dims: int, kernel: int, stride: int, pad: int, dilation: int, group: int, transposed: bool, most: int
) -> None:
    group = 1 if transposed else group
    shape = (4, 6) if transposed else (8, 4 // group)
    weight, x = torch.randn(*shape, *[kernel] * dims), torch.randn(2, 4, *[6] * dims)
    geometry = {
        "kernel_shape": [kernel] * dims, "strides": [stride] * dims, "pads": [pad] * 2 * dims,
        "dilations": [dilation] * dims, "group": group,
    }  # fmt: skip
    smallest = 5 * stride - 2 * pad + dilation * (kernel - 1) + 1
    if transposed and smallest < 1:
        return
    node, y = layer("ConvTranspose" if transposed else "Conv", x, weight, **geometry)
    found = check(node, x, y, weight, most)
    assert found.inputs.shape[:2] == (group, 2 * min(most, y[0, 0].numel()))


def test_linear_layers() -> None:
    x, weight = torch.randn(5, 6), torch.randn(3, 6)
    node, y = layer("Gemm", x, weight, transB=1)
    assert check(node, x, y, weight, 8).inputs.shape == (1, 5, 6)


@pytest.mark.parametrize("most", [4, 50])
def test_linear_layers_over_a_sequence(most: int) -> None:
    x, weight = torch.randn(2, 3, 7, 6), torch.randn(6, 4)
    node, y = layer("MatMul", x, weight)
    assert check(node, x, y, weight, most).inputs.shape == (1, 2 * min(most, 21), 6)


def test_positions_are_the_same_each_time() -> None:
    x, weight = torch.randn(2, 4, 9, 9), torch.randn(8, 4, 1, 1)
    geometry = {"kernel_shape": [1, 1], "strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1], "group": 1}
    node, y = layer("Conv", x, weight, **geometry)
    first, second = (patches.of(node, x, y, 10, generator()) for _ in range(2))
    assert torch.equal(first.inputs, second.inputs)
    assert torch.equal(first.outputs, second.outputs)


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(0, 10**6))
def test_moments_give_the_error(groups: int, k: int, m: int, seed: int) -> None:
    """The mean squared error from the moments of two batches is that of the batches themselves."""
    draw = torch.Generator().manual_seed(seed)
    parts = [
        patches.Patches(torch.randn(groups, n, k, generator=draw) + 1, torch.randn(groups, n, m, generator=draw))
        for n in (6, 3)
    ]
    weight, bias = torch.randn(groups, m, k, generator=draw).double(), torch.randn(groups, m, generator=draw).double()
    moments = Moments.of(parts[0]) + Moments.of(parts[1])
    x, y = (torch.cat([getattr(p, name) for p in parts], 1).double() for name in ("inputs", "outputs"))
    left = x @ weight.mT + bias[:, None] - y
    torch.testing.assert_close(moments.error(weight, bias), left.square().mean(1), rtol=1e-4, atol=1e-4)
    best = moments.bias(weight)
    assert bool(((x @ weight.mT + best[:, None] - y).mean(1).abs() < 1e-5).all())
    square, cross = moments.normal(centred=True)
    form = ((weight @ square - 2 * cross) * weight).sum(-1)
    spread = (y - y.mean(1, keepdim=True)).square().mean(1)
    torch.testing.assert_close(form + spread, moments.error(weight, best), rtol=1e-4, atol=1e-4)
