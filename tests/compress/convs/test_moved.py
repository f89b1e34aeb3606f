"""Kernels at places that are moved, and kernels that a network makes, beside loops and identities."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import erf
from torch import nn

from convkit.compress.convs.hyperzzw import HyperGlobal, HyperLocal, LocalConv, LocalMagnet
from convkit.compress.convs.ponita import PonitaBlock, PonitaConv


def numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


@pytest.mark.parametrize(
    ("radius", "window", "why"),
    [
        (5.0, {"r_max": 2.0, "p": 6.0}, "its window's radius is 2, not 5.0: give radius"),
        (None, {"r_max": 2.0, "p": 6.0}, "its window's radius is 2, not None: give radius"),
        (2.0, {"r_max": 2.0, "p": 5.0}, "its window falls with p 5, not 6"),
    ],
)
def test_a_window_that_is_another_is_refused(radius: float | None, window: dict[str, float], why: str) -> None:
    """As a block's radius is its convolution's."""
    block = PonitaBlock(torch.eye(3), 2, 4, radius=radius)
    state = block.state_dict() | {f"windowing_fn.{name}": torch.tensor(value) for name, value in window.items()}
    with pytest.raises(RuntimeError, match=why):
        block.load_state_dict(state)


def test_without_a_radius_all_pairs_count_alike() -> None:
    torch.manual_seed(0)
    grid = F.normalize(torch.randn(3, 3), dim=-1)
    wide, every = (PonitaBlock(grid, 2, 4, radius=radius, layer_scale=None) for radius in (1e6, None))
    every.load_state_dict(wide.state_dict())
    x, positions = torch.randn(1, 4, 3, 2), torch.randn(1, 4, 3)
    assert (wide(x, positions) - every(x, positions)).abs().max() <= 1e-5


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
    mixed = layer.local_conv.channel_mixer(F.conv2d(x, kernel.transpose(0, 1), padding=1, groups=3))
    centred = numbers(mixed - mixed.mean((2, 3), keepdim=True))
    wanted = gelu(centred / np.sqrt((centred**2).mean((2, 3), keepdims=True) + 1e-5)) + numbers(layer.bias)
    assert np.abs(numbers(layer(x)) - wanted).max() <= 1e-5


def test_a_gradient_passes_through_the_direction_alone() -> None:
    """As in the authors' renormalisation, which adds the hidden values themselves as numbers."""
    torch.manual_seed(0)
    net, x = LocalMagnet(3, 3, hidden=8, layers=1), torch.randn(1, 3, 6, 7)
    made = net(x)
    made.square().sum().backward()
    got = net.filters[0].linear.weight.grad.clone()
    net.zero_grad()
    line = torch.linspace(-1, 1, 3)
    place = torch.stack(torch.meshgrid(line, line, indexing="ij")).unsqueeze(0)
    hidden = net.filters[1](place) * net.linears[0](net.filters[0](place)) + net.bias_pk
    renormed = torch.from_numpy(numbers(hidden)).float() + 0.1 * F.normalize(hidden.flatten(2), dim=-1).view_as(hidden)
    fast = net.fast_linears_x[0](F.gelu(net.fast_fc1(net.fast_reduce(F.adaptive_avg_pool2d(x, 3)))))
    wanted = net.output_linear(renormed * fast)
    assert (made - wanted).abs().max() <= 1e-5
    wanted.square().sum().backward()
    kept = net.filters[0].linear.weight.grad
    assert (got - kept).abs().max() <= 1e-4 * kept.abs().max()


def test_hidden_values_of_nothing_have_a_gradient() -> None:
    net = LocalMagnet(2, 3, hidden=4, layers=1)
    for parameter in net.filters.parameters():
        nn.init.zeros_(parameter)
    net(torch.randn(1, 2, 5, 5)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters() if parameter.grad is not None)


def test_hyper_kernels_have_as_many_hidden_values_as_asked() -> None:
    layers = (HyperGlobal(2, 5, hidden=24, layers=3), HyperLocal(2, 5, hidden=24, layers=3))
    assert all(len(layer.slow_net.linears) == 3 for layer in layers)
    assert all(layer.slow_net.output_linear.in_channels == 24 for layer in layers)


def test_the_network_of_coordinates_is_read_out_of_what_wraps_it() -> None:
    """A SlowNet, alone and in a network."""
    layer = HyperLocal(2, 3)
    theirs = {
        f"1.{name.replace('slow_net.', 'slow_net.Kernel.')}": torch.randn_like(tensor)
        for name, tensor in layer.state_dict().items()
    }
    whole = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), layer)
    length = torch.tensor([3], dtype=torch.int32)
    whole.load_state_dict(theirs | {"0.weight": torch.zeros(2, 3, 1, 1), "1.slow_net.train_length": length})
    assert torch.equal(layer.slow_net.bias_pk, theirs["1.slow_net.Kernel.bias_pk"])
    alone = {f"Kernel.{name}": tensor for name, tensor in LocalMagnet(2, 3).state_dict().items()}
    layer.slow_net.load_state_dict(alone | {"train_length": length})
    assert torch.equal(layer.slow_net.bias_pk, alone["Kernel.bias_pk"])


def test_what_a_hyper_kernel_cannot_take_is_refused() -> None:
    with pytest.raises(ValueError, match="batch of 1"):
        HyperLocal(3, 3)(torch.zeros(2, 3, 6, 6))
    with pytest.raises(ValueError, match="8x8 meets images of its size"):
        HyperGlobal(3, 8)(torch.zeros(1, 3, 8, 9))
    with pytest.raises(ValueError, match="odd size"):
        HyperLocal(3, 4)
    for kernel, batch in ((3, 2), (4, 1)):
        with pytest.raises(ValueError, match=f"LocalConv takes one image .* not {batch} and {kernel}"):
            LocalConv(3)(torch.zeros(1, 3, kernel, kernel), torch.zeros(batch, 3, 6, 6))
