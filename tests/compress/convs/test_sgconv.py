"""SGConv beside the Fourier transform that its authors run, and its kernel beside numpy's interpolation."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import erf

from convkit.compress.convs.sgconv import GConv


def by_fourier(layer: GConv, u: np.ndarray) -> np.ndarray:
    """The convolution as the paper computes it: of 2 L, circular, so that what is ahead stands at the end."""
    length, channels = u.shape[-1], layer.channels
    kernel = layer.kernel(length).detach().double().numpy()
    whole = np.zeros((channels, kernel.shape[1], 2 * length))
    whole[..., :length] = kernel[:channels]
    if layer.bidirectional:
        whole[..., length:] += kernel[channels:, :, ::-1]
    spectrum = np.fft.rfft(u, 2 * length)[:, None] * np.fft.rfft(whole)[None]
    y = np.fft.irfft(spectrum, 2 * length)[..., :length]
    y = y + u[:, None] * layer.D.detach().double().numpy()[None, :, :, None]
    y = y.reshape(len(u), -1, length)
    y = y * 0.5 * (1 + erf(y / np.sqrt(2)))
    weight, bias = (p.detach().double().numpy() for p in layer.output_linear.parameters())
    return np.einsum("bul,vu->bvl", y, weight) + bias[:, None]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("length", "channels"), [(32, 1), (45, 2)])
def test_it_is_the_papers_convolution(length: int, channels: int, bidirectional: bool) -> None:
    torch.manual_seed(length)
    layer = GConv(3, 32, kernel_dim=8, channels=channels, bidirectional=bidirectional)
    u = torch.randn(2, 3, length)
    wanted = by_fourier(layer, u.double().numpy())
    assert np.abs(layer(u).detach().numpy() - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_scales_double_and_decay() -> None:
    """d, d, 2 d, 4 d … taps; the first scales weigh most."""
    layer = GConv(1, 64, kernel_dim=8, decay=(2.0, 2.0))
    with torch.no_grad():
        for kernel in layer.kernel_list:
            kernel.fill_(1.0)
    taps = layer.kernel(64)[0, 0]
    steps = (taps / taps[-1]).tolist()
    assert steps == pytest.approx([8.0] * 8 + [4.0] * 8 + [2.0] * 16 + [1.0] * 32)


def test_between_numbers_it_is_linear() -> None:
    """Each scale is numpy's interpolation at half-steps, its ends held."""
    torch.manual_seed(0)
    layer = GConv(1, 16, kernel_dim=4, mode="sum", decay=(1.0, 1.0))
    first, second, third = (kernel.detach().double().numpy()[0, 0] for kernel in layer.kernel_list)
    wanted = np.zeros(16)
    for numbers, factor in ((first, 1), (second, 2), (third, 4)):
        at = (np.arange(4 * factor) + 0.5) / factor - 0.5
        wanted[: 4 * factor] += np.interp(at, np.arange(4), numbers)
    assert layer.kernel(16)[0, 0].tolist() == pytest.approx(wanted / np.linalg.norm(wanted), abs=1e-6)


def test_the_first_norm_is_kept() -> None:
    layer = GConv(2, 16, kernel_dim=4)
    assert layer.kernel(16).norm(dim=-1).flatten().tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    layer.kernel_norm_initialized.fill_(True)
    layer.kernel_norm.fill_(2.0)
    assert layer.kernel(16).norm(dim=-1).flatten().tolist() != pytest.approx([1.0, 1.0], abs=1e-2)


@pytest.mark.parametrize("passes", [1, 2])
def test_training_holds_the_norm_of_its_first_pass(passes: int) -> None:
    """And differentiates beside it, one pass or more before it goes back."""
    torch.manual_seed(0)
    layer, u = GConv(2, 16, kernel_dim=4, mode="sum"), torch.randn(3, 2, 16)
    layer.eval()
    wanted = layer(u)
    assert not layer.kernel_norm_initialized
    layer.train()
    made = [layer(u) for _ in range(passes)]
    assert layer.kernel_norm_initialized
    norm = layer.kernel_norm.clone()
    assert all((one - wanted).abs().max() <= 1e-6 for one in made)
    torch.stack(made).sum(0).square().sum().backward()
    got = [kernel.grad.clone() for kernel in layer.kernel_list]
    for parameter in layer.parameters():
        parameter.grad = None
    held = GConv(2, 16, kernel_dim=4, mode="sum")
    held.load_state_dict(layer.state_dict())
    (passes * held(u)).square().sum().backward()
    for one, other in zip(got, held.kernel_list, strict=True):
        assert (one - other.grad).abs().max() <= 1e-5 * other.grad.abs().max()
    with torch.no_grad():
        layer.kernel_list[0].mul_(3)
    layer(u)
    assert torch.equal(layer.kernel_norm, norm)


def test_evaluated_it_holds_nothing() -> None:
    layer = GConv(2, 16, kernel_dim=4).eval()
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    layer(torch.randn(1, 2, 16))
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


def test_a_norm_that_is_used_has_its_shape() -> None:
    """Theirs of a layer that never ran has one less axis."""
    layer = GConv(2, 16, kernel_dim=4, channels=3)
    state = layer.state_dict() | {"kernel_norm": torch.ones(2, 1)}
    layer.load_state_dict(state)
    assert layer.kernel_norm.shape == (3, 2, 1)
    with pytest.raises(RuntimeError, match="size mismatch for kernel_norm"):
        layer.load_state_dict(state | {"kernel_norm_initialized": torch.tensor(True)})


@pytest.mark.parametrize(("name", "act"), [("relu", F.relu), ("silu", F.silu), ("tanh", torch.tanh)])
def test_what_stands_between_is_as_asked(name: str, act: Callable[[torch.Tensor], torch.Tensor]) -> None:
    torch.manual_seed(0)
    layer, u = GConv(2, 8, kernel_dim=4, activation=name), torch.randn(1, 2, 8)
    seen = []
    layer.output_linear.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    layer(u)
    skipped = torch.einsum("hs,nhls->nhl", layer.kernel(8)[0].flip(-1), F.pad(u, (7, 0)).unfold(-1, 8, 1))
    assert (seen[0] - act(skipped + u * layer.D[0][:, None])).abs().max() <= 1e-6


def test_what_cannot_be_is_one_line() -> None:
    with pytest.raises(ValueError, match="activation is one of gelu, relu, .* not 'swish'"):
        GConv(2, 16, activation="swish")
    with pytest.raises(ValueError, match="cat or sum, not 'mean'"):
        GConv(2, 16, mode="mean")
    with pytest.raises(ValueError, match=r"GConv takes \[N, 2, L\]"):
        GConv(2, 16)(torch.zeros(1, 3, 16))
