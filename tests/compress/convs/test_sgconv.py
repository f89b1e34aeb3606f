"""SGConv beside the Fourier transform that its authors run, and its kernel beside numpy's interpolation."""

import numpy as np
import pytest
import torch
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


def test_what_cannot_be_is_one_line() -> None:
    with pytest.raises(ValueError, match="cat or sum, not 'mean'"):
        GConv(2, 16, mode="mean")
    with pytest.raises(ValueError, match=r"GConv takes \[N, 2, L\]"):
        GConv(2, 16)(torch.zeros(1, 3, 16))
