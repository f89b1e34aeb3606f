"""Kernels at places that are moved, and kernels that a network makes, beside loops and identities."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.linalg import expm, logm, polar
from scipy.special import erf
from torch import nn

from convkit.compress.convs.hyperzzw import HyperGlobal, HyperLocal
from convkit.compress.convs.lie_group import GroupConv2d, GroupPool, LiftConv2d, coordinates
from convkit.compress.convs.ponita import PonitaBlock, PonitaConv


def numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def test_coordinates_are_those_of_the_polar_decomposition() -> None:
    generator = np.random.default_rng(0)
    matrices = [expm(0.7 * generator.standard_normal((2, 2))) for _ in range(20)] + [np.eye(2), 3 * np.eye(2)]
    for matrix in matrices:
        turn, stretch = polar(matrix)
        grown = logm(stretch)
        wanted = [np.arctan2(turn[1, 0], turn[0, 0]), grown[0, 0], grown[0, 1], grown[1, 1]]
        assert np.abs(coordinates(torch.from_numpy(matrix)).numpy() - wanted).max() <= 1e-9


def quarter_turns() -> torch.Tensor:
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    return torch.stack([torch.linalg.matrix_power(turn, power) for power in range(4)])


def test_a_group_that_is_whole_makes_the_network_invariant() -> None:
    """Of quarter turns: a turned image gives a turned map."""
    torch.manual_seed(0)
    samples = quarter_turns()
    net = nn.Sequential(LiftConv2d(samples, 2, 3, 5, padding=2), nn.ReLU(), GroupConv2d(samples, 3, 4, 3), GroupPool(4))
    x = torch.randn(1, 2, 9, 9)
    made = net(x)
    assert made.shape == (1, 4, 7, 7)
    assert (net(x.rot90(1, (2, 3))) - made.rot90(1, (2, 3))).abs().max() <= 1e-4 * made.abs().max()


def test_kernels_are_the_network_at_moved_places() -> None:
    torch.manual_seed(0)
    samples = torch.linalg.matrix_exp(0.4 * torch.randn(2, 2, 2))
    layer, x = GroupConv2d(samples, 2, 1, 3, padding=1), torch.randn(1, 4, 5, 6)
    matrices = numbers(samples)
    line = [-2 / 3, 0.0, 2 / 3]
    kernel = np.zeros((2, 4, 3, 3))
    for made, read in itertools.product(range(2), range(2)):
        inverse = np.linalg.inv(matrices[made])
        beside = coordinates(torch.from_numpy(inverse @ matrices[read])).numpy()
        for row, column in itertools.product(range(3), range(3)):
            place = np.concatenate([inverse @ [line[column], line[row]], beside])
            value = place
            for linear in layer.inr.net:
                value = np.sin(10 * (numbers(linear.weight) @ value + numbers(linear.bias)))
            value = numbers(layer.inr.final_linear.weight) @ value + numbers(layer.inr.final_linear.bias)
            shown = 1 / (1 + np.exp(-2 * (1 - np.linalg.norm(place))))
            kernel[made, read::2, row, column] = value * shown / abs(np.linalg.det(matrices[made]))
    wanted = F.conv2d(x.double(), torch.from_numpy(kernel), padding=1)
    assert np.abs(numbers(layer(x)) - wanted.numpy()).max() <= 1e-5


def test_samples_that_are_no_group_of_the_plane_are_refused() -> None:
    with pytest.raises(ValueError, match="positive determinants"):
        LiftConv2d(torch.diag(torch.tensor([1.0, -1.0])).unsqueeze(0), 1, 1, 3)


def test_clouds_pair_by_pair() -> None:
    torch.manual_seed(0)
    grid = F.normalize(torch.randn(3, 3), dim=-1)
    layer, x, positions = PonitaConv(grid, 2, 4, radius=3.0), torch.randn(1, 4, 3, 2), 1.5 * torch.randn(1, 4, 3)
    nn.init.normal_(layer.bias)

    def basis(features: list[float], net: nn.Sequential) -> np.ndarray:
        power, made = np.array([1.0]), []
        for _ in range(3):
            power = np.outer(power, features).ravel()
            made.append(power)
        first, second = (net[i] for i in (0, 2))
        hidden = gelu(numbers(first.weight) @ np.concatenate(made) + numbers(first.bias))
        return gelu(numbers(second.weight) @ hidden + numbers(second.bias))

    at, value, axes = numbers(positions)[0], numbers(x)[0], numbers(grid)
    gathered = np.zeros((4, 3, 2))
    for i, j, o in itertools.product(range(4), range(4), range(3)):
        apart = at[j] - at[i]
        far = np.linalg.norm(apart) / 3
        fall = 1 - 28 * far**6 + 48 * far**7 - 21 * far**8 if far < 1 else 0
        along = apart @ axes[o]
        across = np.linalg.norm(apart - along * axes[o])
        kernel = numbers(layer.kernel_spatial.weight) @ basis([along, across], layer.basis_fn) * fall
        gathered[i, o] += kernel * value[j, o]
    wanted = np.zeros((4, 3, 2))
    for o, p in itertools.product(range(3), range(3)):
        kernel = numbers(layer.kernel_spherical.weight) @ basis([axes[o] @ axes[p]], layer.fiber_basis_fn)
        wanted[:, p] += gathered[:, o] * kernel / 3
    assert np.abs(numbers(layer(x, positions))[0] - wanted - numbers(layer.bias)).max() <= 1e-4


def test_moving_the_whole_cloud_changes_nothing() -> None:
    torch.manual_seed(0)
    block = PonitaBlock(F.normalize(torch.randn(5, 3), dim=-1), 3, 6)
    nn.init.normal_(block.layer_scale)
    x, positions = torch.randn(2, 6, 5, 3), torch.randn(2, 6, 3)
    moved = block(x, positions + torch.tensor([1.0, -2.0, 0.5]))
    assert (moved - block(x, positions)).abs().max() <= 1e-4


def test_a_global_kernel_is_a_constant() -> None:
    torch.manual_seed(0)
    layer, x = HyperGlobal(2, 5), torch.randn(3, 2, 5, 5)
    kernel = numbers(layer.slow_net())
    for sample, channel in itertools.product(range(3), range(2)):
        image = numbers(x)[sample, channel]
        wanted = (image * kernel[0, channel]) @ image
        assert np.abs(numbers(layer(x))[sample, channel] - wanted).max() <= 1e-4


def test_a_local_kernel_is_the_images_own() -> None:
    torch.manual_seed(0)
    layer, x = HyperLocal(3, 3), torch.randn(1, 3, 6, 7)
    nn.init.normal_(layer.bias)
    kernel = layer.slow_net(x)
    assert (layer.slow_net(2 * x) - kernel).abs().max() > 1e-4
    wanted = F.conv2d(x, kernel.transpose(0, 1), padding=1, groups=3) + layer.bias
    assert (layer(x) - wanted).abs().max() <= 1e-5


def test_what_a_hyper_kernel_cannot_take_is_refused() -> None:
    with pytest.raises(ValueError, match="batch of 1"):
        HyperLocal(3, 3)(torch.zeros(2, 3, 6, 6))
    with pytest.raises(ValueError, match="8x8 meets images of its size"):
        HyperGlobal(3, 8)(torch.zeros(1, 3, 8, 9))
    with pytest.raises(ValueError, match="odd size"):
        HyperLocal(3, 4)
