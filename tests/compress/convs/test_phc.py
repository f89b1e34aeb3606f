"""Hypercomplex layers beside numpy's Kronecker product."""

import numpy as np
import pytest
import torch

from convkit.compress.convs import phc


@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_weight_is_a_sum_of_kronecker_products(n: int) -> None:
    torch.manual_seed(n)
    layer = phc.PHConv2d(n, 2 * n, 3 * n, 3)
    algebra, filters = layer.a.detach().double().numpy(), layer.s.detach().double().numpy()
    for row in range(3):
        for column in range(3):
            wanted = sum(np.kron(algebra[i], filters[i, :, :, row, column]) for i in range(n))
            assert np.abs(layer.weight().detach().numpy()[:, :, row, column] - wanted).max() <= 1e-6


def test_quaternions_multiply() -> None:
    """With Hamilton's algebra a linear layer of one filter is the product of two quaternions."""
    layer = phc.PHMLinear(4, 4, 4)
    signs = [
        [(0, 1), (1, -1), (2, -1), (3, -1)],
        [(1, 1), (0, 1), (3, -1), (2, 1)],
        [(2, 1), (3, 1), (0, 1), (1, -1)],
        [(3, 1), (2, -1), (1, 1), (0, 1)],
    ]
    left, right = torch.tensor([1.0, -2.0, 3.0, 0.5]), torch.tensor([0.25, 4.0, -1.0, 2.0])
    with torch.no_grad():
        layer.a.zero_()
        for row, entries in enumerate(signs):
            for column, (i, sign) in enumerate(entries):
                layer.a[i, row, column] = sign
        layer.s.copy_(left.reshape(4, 1, 1))
        layer.bias.zero_()
        made = layer(right)
    (a, b, c, d), (e, f, g, h) = left.tolist(), right.tolist()
    wanted = [
        a * e - b * f - c * g - d * h,
        a * f + b * e + c * h - d * g,
        a * g - b * h + c * e + d * f,
        a * h + b * g - c * f + d * e,
    ]
    assert made.tolist() == pytest.approx(wanted)


def test_the_released_convolutions_do_not_add_their_bias() -> None:
    layer = phc.PHConv2d(2, 4, 4, 1)
    assert not layer(torch.zeros(1, 4, 2, 2)).any()
    assert phc.PHConv2d(2, 4, 4, 1, with_bias=True)(torch.zeros(1, 4, 2, 2)).any()


def test_channels_that_do_not_part_are_refused() -> None:
    with pytest.raises(ValueError, match="4 and 6 channels do not part into 4 parts"):
        phc.PHConv2d(4, 4, 6, 3)
