"""Layers that are ordinary ones once their weights are rewritten, and norms that slide, beside their formulae."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from scipy.special import expit
from torch import nn

from convkit.compress.convs.re_dilation import DispersedConv2d, ReDilatedConv2d
from convkit.compress.convs.sub_pixel_conv import SubPixelConv2d
from convkit.compress.convs.time_norm import TimeLayerNorm, TimeRMSNorm


def numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def test_a_kernel_twice_as_far_apart() -> None:
    """As a dense kernel with nothing between its taps."""
    torch.manual_seed(0)
    conv, x = nn.Conv2d(1, 1, 3), torch.randn(1, 1, 9, 8)
    wide = np.zeros((5, 5))
    wide[::2, ::2] = numpy_kernel = numbers(conv.weight)[0, 0]
    assert numpy_kernel.shape == (3, 3)
    wanted = correlate(numbers(x)[0, 0], wide, mode="constant") + conv.bias.item()
    assert np.abs(numbers(ReDilatedConv2d(conv, 2)(x))[0, 0] - wanted).max() <= 1e-6


def test_a_factor_that_is_not_whole_widens_the_image() -> None:
    """A kernel of one position sees the image widened and narrowed again: a ramp, the same but at its edges."""
    conv = nn.Conv2d(1, 1, 1)
    nn.init.ones_(conv.weight)
    nn.init.zeros_(conv.bias)
    x = torch.arange(12.0).expand(1, 1, 9, 12)
    made = ReDilatedConv2d(conv, 1.5)(x)
    assert made.shape == x.shape
    assert (made - x)[..., 2:-2].abs().max() <= 1e-5


def test_a_dispersed_kernel() -> None:
    torch.manual_seed(0)
    conv, matrix, x = nn.Conv2d(1, 1, 3), torch.randn(25, 9), torch.randn(1, 1, 7, 6)
    kernel = (numbers(matrix) @ numbers(conv.weight).ravel()).reshape(5, 5)
    wanted = correlate(numbers(x)[0, 0], kernel, mode="constant") + conv.bias.item()
    assert np.abs(numbers(DispersedConv2d(conv, matrix)(x))[0, 0] - wanted).max() <= 1e-5


def test_a_matrix_of_a_file_of_its_own() -> None:
    """Weights of the convolution alone leave the one that the layer was made with."""
    conv, matrix, other = nn.Conv2d(2, 3, 3), torch.randn(25, 9), torch.randn(25, 9)
    layer = DispersedConv2d(nn.Conv2d(2, 3, 3), matrix)
    layer.load_state_dict(conv.state_dict())
    assert torch.equal(layer.weight, conv.weight)
    assert torch.equal(layer.dispersal, matrix)
    layer.load_state_dict({**conv.state_dict(), "inflation_transform": other})
    assert torch.equal(layer.dispersal, other)
    again = DispersedConv2d(nn.Conv2d(2, 3, 3), matrix)
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again.dispersal, other)


@pytest.mark.parametrize("order", ["crd", "dcr"])
def test_every_channel_goes_to_its_place(order: str) -> None:
    torch.manual_seed(0)
    layer, x = SubPixelConv2d(2, 3, 1, 2, order=order), torch.randn(1, 2, 3, 4)
    rows = np.einsum("oi,ihw->ohw", numbers(layer.conv.weight)[..., 0, 0], numbers(x)[0])
    rows = rows + numbers(layer.conv.bias)[:, None, None]
    made = numbers(layer(x))[0]
    for channel in range(3):
        for a in range(2):
            for b in range(2):
                row = channel * 4 + a * 2 + b if order == "crd" else (a * 2 + b) * 3 + channel
                assert np.abs(made[channel, a::2, b::2] - rows[row]).max() <= 1e-6


@pytest.mark.parametrize("kind", [TimeLayerNorm, TimeRMSNorm])
def test_norms_slide(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    norm, x, log_snr = kind(6), torch.randn(3, 5, 6), torch.tensor([-4.0, 0.5, 7.0])
    for parameter in norm.parameters():
        nn.init.normal_(parameter)

    def at(parameter: nn.Module) -> np.ndarray:
        ends = [numbers(end) for end in (parameter.param0, parameter.param1)]
        slope, shift = numbers(parameter.nodecay_weight) + 1, numbers(parameter.nodecay_bias)
        share = expit(slope * numbers(log_snr)[:, None] / 4 + shift)
        return (share * ends[0] + (1 - share) * ends[1])[:, None]

    image = numbers(x)
    if kind is TimeLayerNorm:
        centred = image - image.mean(-1, keepdims=True)
        wanted = centred / np.sqrt(image.var(-1, keepdims=True) + 1e-5) * at(norm.weight) + at(norm.bias)
    else:
        wanted = image / (np.sqrt((image**2).mean(-1, keepdims=True)) + 1e-8) * at(norm.weight)
    assert np.abs(numbers(norm(x, log_snr)) - wanted).max() <= 1e-5


def test_rows_of_nothing_give_the_bias_and_can_be_learnt_from() -> None:
    norm, x = TimeRMSNorm(6, bias=True), torch.zeros(2, 5, 6, requires_grad=True)
    nn.init.normal_(norm.bias.param0)
    made, time = norm(x, torch.zeros(2)), torch.zeros(2)
    assert torch.equal(made, norm.bias(time)[:, None].expand(2, 5, 6))
    made.sum().backward()
    assert x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in norm.parameters())


def test_at_a_fixed_time_it_is_an_ordinary_norm() -> None:
    torch.manual_seed(0)
    norm, x = TimeLayerNorm(6), torch.randn(2, 5, 6)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    assert (norm.at(1.5)(x) - norm(x, torch.full((2,), 1.5))).abs().max() <= 1e-6


def test_what_cannot_be_is_refused() -> None:
    conv = nn.Conv2d(2, 2, 3)
    with pytest.raises(ValueError, match="more than 0, not -0.5"):
        ReDilatedConv2d(conv, -0.5)
    with pytest.raises(ValueError, match="dispersed where it has a stride of 1"):
        DispersedConv2d(nn.Conv2d(2, 2, 3, stride=2), torch.randn(25, 9))
    with pytest.raises(ValueError, match="odd"):
        DispersedConv2d(conv, torch.zeros(16, 9))
    with pytest.raises(ValueError, match="crd or dcr, not 'rcd'"):
        SubPixelConv2d(2, 2, 3, 2, order="rcd")
    with pytest.raises(ValueError, match="a kernel of 4 positions has no middle"):
        SubPixelConv2d(2, 2, 4, 2)


@pytest.mark.parametrize("settings", [{"dilation": 2, "padding": 2}, {"padding_mode": "reflect"}])
def test_what_is_not_spread_is_refused(settings: dict[str, object]) -> None:
    conv = nn.Conv2d(2, 2, 3, **settings)
    for make in (lambda: ReDilatedConv2d(conv, 2), lambda: DispersedConv2d(conv, torch.randn(25, 9))):
        with pytest.raises(ValueError, match="a dilation of 1 and is padded with zeros"):
            make()
