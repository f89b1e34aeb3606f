"""A network that does otherwise on another size is refused where that size is free, and no other network is."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from convkit.compress.errors import ConvkitError
from convkit.compress.model import Model, ModelRef, parse_shape
from convkit.compress.sources import factory


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return y * 2 if x.shape[3] <= 32 else y + 1


class Narrow(Wide):
    """Above a bound, not below one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return y * 2 if x.shape[3] > 9 else y + 1


class Odd(Wide):
    """As windows pad what they do not divide."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[2] % 2:
            x = nn.functional.pad(x, (0, 0, 0, 1), value=1.0)
        y: torch.Tensor = self.conv(x)
        return y


class Longer(Wide):
    """By two sizes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return y * 2 if x.shape[2] >= x.shape[3] else y


class Pooled(Wide):
    """Not on what is smaller than its window, and torch notes that."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = nn.functional.max_pool2d(self.conv(x), 4)
        return y.flatten(1)


class Halved(Wide):
    """On even sizes alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pixel_unshuffle(self.conv(x), 2)


def traced(network: type[nn.Module], shape: str = "x:Nx3xH=16xW=16") -> Model:
    torch.manual_seed(0)
    return factory.from_module(network().eval(), ModelRef("nets:build", shapes=dict([parse_shape(shape)])))


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Wide, "decides by the size 'W' of input 'x': what was traced holds for W <= 32, not for 33"),
        (Narrow, "decides by the size 'W' of input 'x': what was traced holds for 10 <= W, not for 9"),
        (Odd, "decides by the size 'H' of input 'x'"),
        (Longer, "decides by the size"),
    ],
)
def test_a_network_that_decides_by_a_free_size_is_refused(network: type[nn.Module], said: str) -> None:
    with pytest.raises(ConvkitError) as told:
        traced(network)
    assert said in str(told.value)
    assert "give a number: --shape x:" in str(told.value)
    free = traced(network, "x:Nx3x16x16")
    given = torch.randn(3, 3, 16, 16)
    torch.manual_seed(0)
    with torch.no_grad():
        assert torch.allclose(free.graph(given)[0], network().eval()(given), atol=1e-5)


@pytest.mark.parametrize("network", [Pooled, Halved])
@pytest.mark.parametrize("size", [8, 24, 60])
def test_what_a_network_cannot_run_on_is_no_decision(network: type[nn.Module], size: int) -> None:
    model = traced(network)
    given = torch.randn(1, 3, size, size + 4)
    torch.manual_seed(0)
    with torch.no_grad():
        assert torch.allclose(model.graph(given)[0], network().eval()(given), atol=1e-5)


def test_layers_whose_kernels_grow_with_the_length_want_it_as_a_number() -> None:
    from convkit.compress.convs.sgconv import GConv

    class Long(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(GConv(4, 100, kernel_dim=8))

    with pytest.raises(ConvkitError, match="decides by the size 'L'"):
        traced(Long, "input:Nx4xL=77")
    assert traced(Long, "input:Nx4x77").outputs[0].shape[-1] == 77


def test_what_names_a_free_size_names_it_as_the_user_does() -> None:
    from convkit.compress.convs.re_dilation import ReDilatedConv2d

    class Grown(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(ReDilatedConv2d(nn.Conv2d(3, 4, 3, padding=1), 1.7))

    with pytest.raises(ConvkitError) as told:
        traced(Grown, "input:Nx3xH=11xW=8")
    assert re.search(r"\bs\d+\b", str(told.value).replace(str(Path.cwd()), "")) is None
    assert "the size" in str(told.value)
    assert re.search(r"\b[HW]\b", str(told.value))
    assert "give the size as a number in --shape" in str(told.value)
