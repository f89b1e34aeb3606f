"""Convolutions over groups of the plane, beside logarithms of matrices and loops."""

import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from scipy.linalg import expm, logm, polar
from torch import nn

from convkit.compress.convs._plane_groups import coordinates
from convkit.compress.convs.lie_group import GroupConv2d, GroupPool, LiftConv2d
from tests.compress.convs import recorded


def numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


BASES = {
    "so2": [[[0, -1], [1, 0]]],
    "sl2": [[[0, 1], [1, 0]], [[0, -1], [1, 0]], [[1, 0], [0, -1]]],
    "gl2": [[[1, 0], [0, 0]], [[0, 1], [1, 0]], [[0, 0], [0, 1]], [[0, -1], [1, 0]]],
}
"""Of the algebras; one that is symmetric is orthonormal by alpha tr(A^T B) once it is scaled."""


def located(matrix: np.ndarray, kind: str, alpha: float = 1.0) -> list[float]:
    """Coordinates by the logarithms of P and R in P R, one beside the other in the algebra's basis."""
    turn, stretch = polar(matrix, side="left")
    sine = 0.0 if abs(turn[1, 0]) < 1e-6 else turn[1, 0]
    angle = np.angle(complex(turn[0, 0], sine)) % (2 * np.pi)
    grown = np.real(logm(stretch))
    found = []
    for base in map(np.array, BASES[kind]):
        part = angle if base[0, 1] == -1 else np.trace(grown @ base) / np.trace(base @ base)
        found.append(part * (1 if base[0, 1] == -1 else np.sqrt(alpha * np.trace(base @ base))))
    return found


def turned(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


@pytest.mark.parametrize("alpha", [1.0, 2.5])
@pytest.mark.parametrize("kind", ["so2", "sl2", "gl2"])
def test_coordinates_are_those_of_the_polar_decomposition(kind: str, alpha: float) -> None:
    generator = np.random.default_rng(0)
    matrices = [expm(0.7 * generator.standard_normal((2, 2))) for _ in range(20)] + [np.eye(2), 3 * np.eye(2)]
    for matrix in matrices:
        area = np.linalg.det(matrix) if kind == "sl2" else 1.0
        own = polar(matrix)[0] if kind == "so2" else matrix / np.sqrt(area)
        found = coordinates(torch.from_numpy(own), kind, alpha).numpy()
        assert np.abs(found - located(own, kind, alpha)).max() <= 1e-9


@pytest.mark.parametrize(("angle", "wanted"), [(-1e-8, 0), (1e-8, 0), (np.pi + 1e-8, np.pi), (-1e-3, 2 * np.pi - 1e-3)])
def test_no_turn_is_not_a_whole_one(angle: float, wanted: float) -> None:
    for kind, place in (("so2", 0), ("sl2", 1), ("gl2", 3)):
        found = coordinates(torch.from_numpy(turned(angle)), kind)[place]
        assert abs(float(found) - wanted) <= 1e-9


def quarter_turns() -> torch.Tensor:
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    return torch.stack([torch.linalg.matrix_power(turn, power) for power in range(4)])


@pytest.mark.parametrize("kind", ["so2", "sl2", "gl2"])
def test_a_group_that_is_whole_makes_the_network_invariant(kind: str) -> None:
    """Of quarter turns: a turned image gives a turned map."""
    torch.manual_seed(0)
    samples = quarter_turns()
    lift, conv = LiftConv2d(samples, 2, 3, 5, padding=2, kind=kind), GroupConv2d(samples, 3, 4, 3, kind=kind)
    net, x = nn.Sequential(lift, nn.ReLU(), conv, GroupPool(4)), torch.randn(1, 2, 9, 9)
    made = net(x)
    assert made.shape == (1, 4, 7, 7)
    assert (net(x.rot90(1, (2, 3))) - made.rot90(1, (2, 3))).abs().max() <= 1e-4 * made.abs().max()


@pytest.mark.parametrize("kind", ["so2", "sl2", "gl2"])
def test_kernels_are_the_network_at_moved_places(kind: str) -> None:
    torch.manual_seed(0)
    algebra = 0.4 * torch.randn(2, len(BASES[kind]))
    samples = torch.linalg.matrix_exp(torch.einsum("gb,bij->gij", algebra, torch.tensor(BASES[kind]).float()))
    layer, x = GroupConv2d(samples, 2, 1, 3, padding=1, kind=kind, hidden=6, w0=5.0), torch.randn(1, 4, 5, 6)
    matrices = numbers(samples)
    line = [-2 / 3, 0.0, 2 / 3]
    kernel = np.zeros((2, 4, 3, 3))
    for made, read in itertools.product(range(2), range(2)):
        inverse = np.linalg.inv(matrices[made])
        beside = located(inverse @ matrices[read], kind)
        for row, column in itertools.product(range(3), range(3)):
            place = np.concatenate([inverse @ [line[column], line[row]], beside])
            value = place
            for linear in layer.inr.net:
                value = np.sin(5 * (numbers(linear.weight) @ value + numbers(linear.bias)))
            value = numbers(layer.inr.final_linear.weight) @ value + numbers(layer.inr.final_linear.bias)
            shown = float(np.linalg.norm(place[:2]) <= 1)
            if kind == "gl2":
                shown = 1 / (1 + np.exp(-2 * (1 - np.linalg.norm(place)))) / abs(np.linalg.det(matrices[made]))
            kernel[made, read::2, row, column] = value * shown
    wanted = F.conv2d(x.double(), torch.from_numpy(kernel), padding=1)
    assert np.abs(numbers(layer(x)) - wanted.numpy()).max() <= 1e-5


def test_samples_that_are_no_group_of_the_plane_are_refused() -> None:
    with pytest.raises(ValueError, match="positive determinants"):
        LiftConv2d(torch.diag(torch.tensor([1.0, -1.0])).unsqueeze(0), 1, 1, 3)


def test_a_kind_that_the_samples_are_not_of_is_refused() -> None:
    stretch = torch.diag(torch.tensor([2.0, 1.0])).unsqueeze(0)
    with pytest.raises(ValueError, match="no group 'so3'; kind is one of so2, sl2, gl2"):
        LiftConv2d(stretch, 1, 1, 3, kind="so3")
    with pytest.raises(ValueError, match="sl2 have determinants of 1"):
        GroupConv2d(stretch, 1, 1, 3, kind="sl2")
    shear = torch.tensor([[[1.0, 0.5], [0.0, 1.0]]])
    LiftConv2d(shear, 1, 1, 3, kind="sl2")
    with pytest.raises(ValueError, match="so2 are rotations"):
        LiftConv2d(shear, 1, 1, 3, kind="so2")
    with pytest.raises(ValueError, match="as many out_samples as samples, 1"):
        GroupConv2d(stretch, 1, 1, 3, out_samples=stretch.repeat(2, 1, 1))
    with pytest.raises(ValueError, match="metric_alpha above 0, not -1"):
        GroupConv2d(stretch, 1, 1, 3, metric_alpha=-1)


def test_areas_may_be_off_by_rounding() -> None:
    """Of samples in float32 that stretch much."""
    torch.manual_seed(0)
    algebra = torch.einsum("gb,bij->gij", 3 * torch.randn(50, 3), torch.tensor(BASES["sl2"]).float())
    samples = torch.linalg.matrix_exp(algebra / 2)
    assert (torch.linalg.det(samples) - 1).abs().max() > 1e-6
    assert LiftConv2d(samples, 1, 1, 3, kind="sl2").volume_preserving


@pytest.mark.parametrize(
    ("kind", "found", "why"),
    [
        ("so2", {"kind": "sl2"}, "its group is so2, not sl2: give kind"),
        ("gl2", {"w0": 30.0}, "trained with w0 10, not 30: give w0"),
        ("gl2", {"out_samples": None}, "output are not the input's: give out_samples"),
        ("gl2", {"metric_alpha": 1.0}, "metric_alpha is 2, not 1: give metric_alpha"),
        ("gl2", {"kernel_size": 4}, "taps are not the 4x4 of grid_type 'affine'"),
    ],
)
def test_a_state_that_the_layer_was_not_made_for_is_refused(kind: str, found: dict[str, object], why: str) -> None:
    made, state = authors_own(f"lie_group.group-{kind}")
    with pytest.raises(RuntimeError, match=why):
        GroupConv2d(**made | found).load_state_dict(state)


def authors_own(name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Arguments and state of a record."""
    with safe_open(recorded.FOLDER / f"{name}.safetensors", "pt") as file:
        told = json.loads(file.metadata()["arguments"])
        state = {key.removeprefix("state/"): file.get_tensor(key) for key in file.keys() if key.startswith("state/")}  # noqa: SIM118 - not a mapping
    return {key: recorded._argument(value, state) for key, value in told.items()}, state


def test_the_network_begins_as_the_authors_does() -> None:
    """Whose kernels are such that what is summed keeps its size."""
    torch.manual_seed(0)
    net = GroupConv2d(torch.eye(2).repeat(2, 1, 1), 8, 32, 5, kind="gl2").inr
    assert not any(layer.bias.any() for layer in (*net.net[1:], net.final_linear))
    bounds = [1 / 6, (6 / 64) ** 0.5 / 10, (6 / 64) ** 0.5 / 10, (6 / 64 / 8) ** 0.5 / 5]
    for layer, bound in zip((*net.net, net.final_linear), bounds, strict=True):
        assert 0.95 * bound <= layer.weight.abs().max() <= bound


def test_a_group_is_the_least_that_has_its_samples_and_others_do_not_load() -> None:
    turn, shear, stretch = (
        torch.tensor(rows) for rows in ([[0.6, -0.8], [0.8, 0.6]], [[1.0, 2], [0, 1]], [[2.0, 0], [0, 1]])
    )
    layers = [LiftConv2d(torch.stack((torch.eye(2), sample)), 1, 1, 3) for sample in (turn, shear, stretch)]
    assert [layer.kind for layer in layers] == ["so2", "sl2", "gl2"]
    with pytest.raises(RuntimeError, match="samples of so2 are rotations"):
        layers[0].load_state_dict(layers[1].state_dict())


def test_samples_are_those_that_the_authors_layer_saw_last() -> None:
    made, state = authors_own("lie_group.lift-gl2")
    lift = LiftConv2d(**made)
    lift.load_state_dict(state)
    assert (lift.samples @ state["g_inv"] - torch.eye(2)).abs().max() <= 1e-6
    made, state = authors_own("lie_group.group-gl2")
    conv = GroupConv2d(**made)
    conv.load_state_dict(state)
    assert conv.out_samples is not None
    assert torch.equal(conv.samples, state["g_tilde"])
    assert (conv.out_samples @ state["g_inv"] - torch.eye(2)).abs().max() <= 1e-6
    again = GroupConv2d(**made)
    again.load_state_dict(conv.state_dict())
    assert torch.equal(again.out_samples, conv.out_samples)  # type: ignore[arg-type]
