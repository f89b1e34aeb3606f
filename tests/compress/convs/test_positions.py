"""Coordinate maps and quantized coordinates, beside numpy."""

import numpy as np
import pytest
import torch

from convkit.compress.convs.coordinate_maps import CoordinateMaps
from convkit.compress.convs.quantized_coordinates import QuantizedCoordinates


@pytest.mark.parametrize("size", [(5, 8), (1, 4)])
def test_maps_go_from_minus_one_to_one(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    made = CoordinateMaps()(x).numpy()
    assert np.array_equal(made[:, :3], x.numpy())
    rows, columns = np.meshgrid(*(torch.linspace(-1, 1, n).numpy() for n in size), indexing="ij")
    for image in made:
        assert np.abs(image[3] - rows).max() <= 1e-6
        assert np.abs(image[4] - columns).max() <= 1e-6


def test_points_go_to_the_middle_of_their_cell() -> None:
    x = torch.tensor([[-1.0, -0.76], [0.0, 0.99]])
    assert QuantizedCoordinates(5, 1.0)(x).tolist() == [[-0.75, -0.75], [0.25, 0.75]]


@pytest.mark.parametrize("resolution", [2, 3, 8, 9, 25600])
@pytest.mark.parametrize("bound", [1.0, 2.5])
def test_the_formula_of_the_paper(resolution: int, bound: float) -> None:
    """2b ((floor(u (R - 1)) + 1/2) / (R - 1)) - b, u = (x + b) / 2b; in float64, away from where two cells meet."""
    x, cells = torch.rand(4000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), resolution - 1
    x = (x * 2 - 1) * bound
    place = (x + bound) / (2 * bound) * cells
    inside = (place - place.round()).abs() > 1e-6
    wanted = 2 * bound * ((place.floor() + 0.5) / cells) - bound
    assert float((QuantizedCoordinates(resolution, bound)(x) - wanted)[inside].abs().max()) <= 1e-12


def test_the_grid_of_the_paper() -> None:
    x = torch.rand(1000, 3, dtype=torch.float64) * 5 - 2.5
    made = QuantizedCoordinates()(x)
    assert float((made - x).abs().max()) <= 2.5 / 25599 + 1e-12
    assert torch.equal(QuantizedCoordinates()(made), made)


def test_what_cannot_be_is_one_line() -> None:
    with pytest.raises(ValueError, match="not 'depth'"):
        CoordinateMaps(("depth",))
    with pytest.raises(ValueError, match=r"takes \[N, C, H, W\]"):
        CoordinateMaps()(torch.zeros(3, 4, 5))
    with pytest.raises(ValueError, match="no cells"):
        QuantizedCoordinates(1)
