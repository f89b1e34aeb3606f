"""The Gaunt product beside the product of functions that it is."""

import numpy as np
import pytest
import torch

from convkit.compress.convs.gaunt import GauntTensorProduct, grid, harmonics


def points(count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.uniform(0, np.pi, count), random.uniform(0, 2 * np.pi, count)


def test_harmonics_are_orthonormal() -> None:
    theta, phi, area = grid(8)
    values = harmonics(4, theta, phi)
    assert np.abs((values * area) @ values.T - np.eye(25)).max() <= 1e-13


def test_the_first_harmonics() -> None:
    theta, phi = points(7)
    x, y, z = np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)
    wanted = np.stack([np.full(7, 0.5), *(np.sqrt(3) / 2 * axis for axis in (y, z, x))]) / np.sqrt(np.pi)
    assert np.abs(harmonics(1, theta, phi) - wanted).max() <= 1e-14


@pytest.mark.parametrize(("first", "second"), [(0, 2), (1, 3), (3, 3)])
def test_functions_are_multiplied(first: int, second: int) -> None:
    """At points that are none of the grid's."""
    torch.manual_seed(0)
    a, b = torch.randn(4, (first + 1) ** 2), torch.randn(4, (second + 1) ** 2)
    theta, phi = points(50)
    made = GauntTensorProduct(first, second, first + second)(a, b).double().numpy()
    wanted = (a.double().numpy() @ harmonics(first, theta, phi)) * (b.double().numpy() @ harmonics(second, theta, phi))
    assert np.abs(made @ harmonics(first + second, theta, phi) - wanted).max() <= 1e-5


def test_fewer_degrees_are_the_beginning_of_more() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(3, 9), torch.randn(3, 4)
    few, all_of_it = (GauntTensorProduct(2, 1, out)(a, b) for out in (1, 3))
    assert torch.allclose(few, all_of_it[:, :4], atol=1e-6)


def test_what_cannot_be_is_one_line() -> None:
    with pytest.raises(ValueError, match="has 9 harmonics, not 4"):
        GauntTensorProduct(2, 2, 2)(torch.zeros(1, 4), torch.zeros(1, 9))
    with pytest.raises(ValueError, match="begin at 0, not -1"):
        GauntTensorProduct(2, 2, -1)
