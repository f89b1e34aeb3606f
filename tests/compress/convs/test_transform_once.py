"""Transform once beside scipy's transforms of the whole image, with everything beyond the modes set to nothing."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn

from convkit.compress.convs.transform_once import TransformOnce, TransformOnceLayer, modes_of


def numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


@pytest.mark.parametrize(("size", "modes", "padding"), [(9, 9, 0), (8, 5, 0), (7, 6, 3)])
def test_the_matrix_is_the_transform(size: int, modes: int, padding: int) -> None:
    signal = np.random.default_rng(0).standard_normal(size)
    wanted = dctn(np.concatenate([signal, np.zeros(padding)]), type=2, norm="ortho")[:modes]
    assert np.abs(modes_of(size, modes, padding).numpy() @ signal - wanted).max() <= 1e-12


@pytest.mark.parametrize("padding", [0, 2])
def test_the_network(padding: int) -> None:
    torch.manual_seed(0)
    modes, net = 4, TransformOnce(4, 6, 2, 3, nlayers=2, padding=padding)
    x = torch.randn(2, 2, 7, 9)
    steps = (np.linspace(0, 1, size) for size in (7, 9))
    grid = np.broadcast_to(np.stack(np.meshgrid(*steps, indexing="ij")), (2, 2, 7, 9))
    lifted = np.einsum("bchw,oc->bohw", np.concatenate([numbers(x), grid], 1), numbers(net.fc0.weight))
    lifted = lifted + numbers(net.fc0.bias)[:, None, None]
    z = dctn(np.pad(lifted, ((0, 0), (0, 0), (0, padding), (0, padding))), type=2, norm="ortho", axes=(2, 3))
    for layer in net.layers:
        low = z[..., :modes, :modes]
        mixed = np.sin(np.einsum("bixy,ioxy->boxy", low, numbers(layer.ch_mixing_1)))
        mixed = np.einsum("bcix,ioc->bcox", mixed, numbers(layer.spatial_mixing_1))
        z = np.zeros_like(z)
        z[..., :modes, :modes] = low + np.einsum("bcyi,ioc->bcyo", mixed, numbers(layer.spatial_mixing_2))
    head = np.einsum("bixy,io->boxy", np.sin(np.einsum("bixy,io->boxy", z, numbers(net.fc1))), numbers(net.fc2))
    wanted = idctn(head, type=2, norm="ortho", axes=(2, 3))
    assert np.abs(numbers(net(x)) - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_without_the_inverse_it_gives_modes() -> None:
    torch.manual_seed(0)
    net = TransformOnce(3, 4, 2, 2, nlayers=1, padding=2)
    x = torch.randn(2, 2, 5, 8)
    wanted = dctn(numbers(net(x)), type=2, norm="ortho", axes=(2, 3))
    net.perform_inverse = False
    made = net(x)
    assert made.shape == (2, 2, 7, 10)
    assert np.abs(numbers(made) - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_without_the_residual_a_layer_adds_nothing() -> None:
    torch.manual_seed(0)
    layer, z = TransformOnceLayer(3, 4), torch.randn(2, 4, 3, 3)
    whole = layer(z)
    layer.residual = False
    assert (whole - layer(z) - z).abs().max() <= 1e-5


def test_an_activation_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="TransformOnce is sin or gelu, not 'relu'"):
        TransformOnce(3, 4, 1, 1, act="relu")


def test_modes_that_an_image_has_not_are_refused() -> None:
    with pytest.raises(ValueError, match="no 8 modes"):
        TransformOnce(8, 4, 1, 1)(torch.zeros(1, 1, 9, 7))
