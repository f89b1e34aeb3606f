"""DCLS beside its formula, element by element in Python's own floats."""

import itertools
import math

import pytest
import torch

from convkit.compress.convs import dcls

SIZES = {1: (7,), 2: (7, 3), 3: (3, 5, 7)}


def share(distance: float, sigma: float, version: str) -> float:
    if version == "gauss":
        return math.exp(-0.5 * (distance / (abs(sigma) + 0.27)) ** 2)
    width = abs(sigma) + 1 if version == "max" else 1.0
    return max(0.0, width - abs(distance))


def kernel(layer: torch.nn.Module, size: tuple[int, ...], version: str) -> torch.Tensor:
    """Every element spread over the cells of its kernel."""
    rank, places = len(size), layer.P.detach()
    found = torch.zeros(*layer.weight.shape[:2], *size, dtype=torch.float64)
    axes = {1: [0], 2: [0, 1], 3: [0, 2, 1]}[rank] if version == "v0" else list(reversed(range(rank)))
    for out, read, element in itertools.product(*map(range, layer.weight.shape)):
        cells = {}
        for cell in itertools.product(*map(range, size)):
            part = 1.0
            for turn, axis in enumerate(axes):
                place = float(places[turn, out, read, element]) + size[turn] // 2
                sigma = float(layer.SIG.detach()[turn, out, read, element]) if version in ("max", "gauss") else 0.0
                part *= share(cell[axis] - place, sigma, version)
            cells[cell] = part
        whole = 1.0 if version == "v0" else sum(cells.values()) + 1e-7
        for cell, part in cells.items():
            found[(out, read, *cell)] += float(layer.weight.detach()[out, read, element]) * part / whole
    return found


@pytest.mark.parametrize("version", dcls.VERSIONS)
@pytest.mark.parametrize("rank", SIZES)
def test_the_kernel_is_the_formulas(rank: int, version: str) -> None:
    torch.manual_seed(rank)
    layer = (dcls.Dcls1d, dcls.Dcls2d, dcls.Dcls3d)[rank - 1](
        4, 2, 3, dilated_kernel_size=SIZES[rank], groups=2, version=version
    )
    torch.nn.init.normal_(layer.P)
    if version in ("max", "gauss"):
        torch.nn.init.normal_(layer.SIG)
    wanted = kernel(layer, SIZES[rank], version)
    assert float((layer.kernel().detach() - wanted).abs().max()) <= 1e-6


def test_positions_of_a_volume_lie_along_depth_column_and_row_in_v0() -> None:
    """As in the reference implementation, whose trained positions are read."""
    for turn, cell in enumerate(([3, 2, 2], [2, 2, 3], [2, 3, 2])):
        layer = dcls.Dcls3d(1, 1, 1, dilated_kernel_size=5, version="v0")
        with torch.no_grad():
            layer.weight.fill_(1.0)
            layer.P.zero_()[turn] = 1.0
        assert torch.nonzero(layer.kernel().detach()[0, 0] > 0.5).tolist() == [cell]


def test_the_first_position_is_a_column_but_in_v0() -> None:
    """One element one step off the centre along the first position."""
    places = {}
    for version in ("v0", "v1"):
        layer = dcls.Dcls2d(1, 1, 1, dilated_kernel_size=5, version=version)
        with torch.no_grad():
            layer.weight.fill_(1.0)
            layer.P.copy_(torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1))
        places[version] = torch.nonzero(layer.kernel().detach()[0, 0] > 0.5).tolist()
    assert places == {"v0": [[3, 2]], "v1": [[2, 3]]}


def test_v0_loses_what_lies_beyond_the_kernel() -> None:
    layer = dcls.Dcls1d(1, 1, 1, dilated_kernel_size=3, version="v0")
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.P.fill_(1.25)
    assert layer.kernel().flatten().tolist() == [0.0, 0.0, 0.75]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"version": "v9"}, "no version 'v9'"), ({"groups": 3}, "do not part into 3 groups")],
)
def test_what_cannot_be_is_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dcls.Dcls2d(4, 4, 2, dilated_kernel_size=5, **changes)


def test_an_image_of_another_rank_is_refused() -> None:
    with pytest.raises(ValueError, match="Dcls2d takes"):
        dcls.Dcls2d(4, 4, 2, dilated_kernel_size=5)(torch.zeros(4, 8, 8))
