"""Statistics of filters, against what their formulas say of filters that are known."""

import math

import torch
from torch import nn

from convkit.compress import filters


def conv(weight: torch.Tensor) -> nn.Conv2d:
    made = nn.Conv2d(weight.shape[1], weight.shape[0], tuple(weight.shape[2:]))
    made.weight = nn.Parameter(weight)
    return made


def test_filters_of_one_direction_have_no_entropy() -> None:
    one = torch.randn(9)
    assert filters.entropy(torch.randn(64, 1) * one) < 1e-9


def test_noise_has_the_most() -> None:
    torch.manual_seed(0)
    assert math.isclose(filters.entropy(torch.randn(100_000, 9)), math.log10(9), abs_tol=1e-3)


def test_noise_is_at_the_threshold_and_what_is_smooth_below() -> None:
    torch.manual_seed(0)
    for count in (256, 4096):
        noise = filters.entropy(torch.randn(count, 9))
        assert abs(noise - filters.threshold(count)) < 0.03
        smooth = torch.randn(count, 2) @ torch.randn(2, 9)
        assert filters.entropy(smooth) < 0.5


def test_idle_filters_are_counted() -> None:
    weight = torch.randn(8, 4, 3, 3).clamp(0.5, 1.0)
    weight[:2] *= 1e-3
    (found,) = [filters._filters("conv", conv(weight))]
    assert found.sparse == 0.25
    assert (found.count, found.taps) == (32, 9)
    assert found.hint.startswith("shrink")


def test_outputs_at_right_angles() -> None:
    assert filters.orthogonality(torch.eye(5)) == 1
    assert math.isclose(filters.orthogonality(torch.ones(5, 7)), 0, abs_tol=1e-6)
    two = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert math.isclose(filters.orthogonality(two), 1 - 1 / math.sqrt(2), rel_tol=1e-6)


def test_entropy_says_something_of_enough_filters_of_nine_taps() -> None:
    few, untrained = "factorize: few directions", "looks untrained: wider than it need be"
    assert _hints(16, 3) == (few, untrained)
    assert _hints(15, 3) == _hints(256, 2) == _hints(256, 5) == ("", "")


def _hints(outputs: int, taps: int) -> tuple[str, str]:
    """Of filters of one direction, and of those that have all in equal parts."""
    torch.manual_seed(0)
    alike = torch.rand(outputs, 1, 1, 1) * torch.ones(taps, taps)
    apart = torch.linalg.qr(torch.randn(outputs, taps**2)).Q.reshape(-1, 1, taps, taps)
    one, other = (filters._filters("conv", conv(weight)).hint for weight in (alike, apart))
    return one, other


def test_a_layer_of_zeros_does_nothing() -> None:
    found = filters._filters("conv", conv(torch.zeros(8, 4, 3, 3)))
    assert found.sparse == 1
    assert found.hint.startswith("shrink")


def test_outputs_of_a_transposed_convolution_are_on_its_second_axis() -> None:
    up = nn.ConvTranspose2d(4, 2, 3)
    with torch.no_grad():
        up.weight.zero_()
        up.weight[:2, 0], up.weight[2:, 1] = 1, 1
    assert filters._filters("up", up).orthogonal == 1
