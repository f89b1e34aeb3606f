"""Networks in forms before they are trained."""

import copy

import pytest
import torch
from torch import nn

from convkit.compress import apriori, parts
from convkit.compress import form as forms
from convkit.compress.apriori import Chosen
from convkit.compress.convs.sub_pixel_conv import SubPixelConv2d
from convkit.compress.errors import ConvkitError
from tests.compress.test_form import Scaled

NAMES = parts.names(forms.FOLDER)


def net(channels: int = 32, depth: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    body = [layer for _ in range(depth) for layer in (nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())]
    return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), *body, nn.Conv2d(channels, 1, 3, padding=1))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_network_keeps_to_its_share(name: str) -> None:
    share = 0.2
    found = apriori.chosen(net(), name, share)
    made = apriori.rewrite(net(), found)
    assert 0.5 * share * count(net()) < count(made) <= share * count(net())


@pytest.mark.parametrize("name", NAMES)
def test_numbers_keep_their_variance(name: str) -> None:
    """From layer to layer, as those of the dense network do."""
    made = apriori.rewrite(net(64, 6), apriori.chosen(net(64, 6), name, 0.3))
    x = torch.randn(8, 3, 24, 24)
    with torch.no_grad():
        seen = [x := layer(x) for layer in made][1:-1:2]
    powers = [float(one.square().mean()) for one in seen]
    assert all(0.05 < power < 20 for power in powers)


@pytest.mark.parametrize("name", NAMES)
def test_merged_back_it_computes_the_same(name: str) -> None:
    found = apriori.chosen(net(), name, 0.3)
    made = apriori.rewrite(net(), found).double()
    x = torch.randn(2, 3, 9, 11).double()
    with torch.no_grad():
        wanted = made(x)
        back = apriori.dense(made, found)
        assert [type(layer) for layer in back] == [type(layer) for layer in net()]
        assert (back(x) - wanted).abs().max() <= 1e-9 * wanted.abs().max()


def test_the_same_seed_draws_the_same() -> None:
    found = apriori.chosen(net(), "cp", 0.3)
    one, again, other = (apriori.rewrite(net(), found, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("2", "one_wy:1", "no form is called 'one_wy'"),
        ("2", "cp", "says no ranks"),
        ("2", "cp:0", "says no ranks"),
        ("2", "tucker2:3", "tucker2 has 2 ranks, not 1"),
        ("2", "channel_svd:33", "more than the channel_svd:32"),
        ("1", "cp:3", "layer '1', a ReLU, has no form cp"),
        ("99", "cp:3", "no layer '99'"),
    ],
)
def test_what_cannot_be_is_told(name: str, text: str, words: str) -> None:
    with pytest.raises(ConvkitError, match=words):
        apriori.rewrite(net(), {name: Chosen.parse(text)})


def test_a_share_that_no_rank_reaches_is_told() -> None:
    with pytest.raises(ConvkitError, match="parameters at least"):
        apriori.chosen(net(), "one_way", 0.01)


@pytest.mark.parametrize("layer", [Scaled(32, 0.5), SubPixelConv2d(32, 8, 3, 2)], ids=["a user's", "a novel one"])
@pytest.mark.parametrize("name", ["one_way", "tucker2", "kronecker"])
def test_convolutions_of_other_classes_are_left_to_themselves(name: str, layer: nn.Module) -> None:
    module = nn.Sequential(*net()[:-1], copy.deepcopy(layer))
    before = copy.deepcopy(module[-1].state_dict())
    found = apriori.chosen(module, name, 0.4)
    assert apriori.convolutions(module).keys() == {"0", "2", "4", "6", "8"}
    assert {"2", "4", "6", "8"} <= found.keys()
    made = apriori.rewrite(module, found).double()
    assert type(made[-1]) is type(layer)
    assert all(torch.equal(tensor, before[key].double()) for key, tensor in made[-1].state_dict().items())
    x = torch.randn(2, 3, 9, 11).double()
    with torch.no_grad():
        wanted = made(x)
        assert (apriori.dense(made, found)(x) - wanted).abs().max() <= 1e-9 * wanted.abs().max()


def test_what_a_novel_convolution_is_made_of_is_no_convolution_of_the_network() -> None:
    assert not apriori.convolutions(SubPixelConv2d(32, 8, 3, 2))


@pytest.mark.parametrize("name", ["one_way", "tucker2"])
def test_a_convolution_of_two_names_is_one_under_both(name: str) -> None:
    twice = nn.Conv2d(32, 32, 3, padding=1)
    module = nn.Sequential(nn.Conv2d(3, 32, 1), twice, nn.ReLU(), twice, nn.Conv2d(32, 1, 1))
    whole = count(module)
    found = apriori.chosen(module, name, 0.3)
    assert "3" not in found
    made = apriori.rewrite(module, found).double()
    assert made[1] is made[3] is not twice
    assert 0.15 * whole < count(made) <= 0.3 * whole
    x = torch.randn(2, 3, 9, 11).double()
    with torch.no_grad():
        wanted = made(x)
        back = apriori.dense(made, found)
        assert back[1] is back[3]
        assert type(back[1]) is nn.Conv2d
        assert count(back) == whole
        assert (back(x) - wanted).abs().max() <= 1e-9 * wanted.abs().max()


@pytest.mark.parametrize("name", ["one_way", "tucker2"])
def test_a_weight_that_two_convolutions_share_counts_once(name: str) -> None:
    module = net()
    first, other = module[2], module[4]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(other, nn.Conv2d)
    other.weight = first.weight
    whole = count(module)
    assert 0.15 * whole < count(apriori.rewrite(module, apriori.chosen(module, name, 0.3))) <= 0.3 * whole


@pytest.mark.parametrize(
    ("padding", "kernel", "found"), [("same", 3, (2, 2)), ("valid", 3, (0, 0)), ("same", 2, (1, 1))]
)
def test_a_padding_that_is_called_by_its_name_is_numbers(padding: str, kernel: int, found: tuple[int, int]) -> None:
    """Twice the distance between taps; as many pixels on both sides."""
    layer = nn.Conv2d(4, 64, kernel, padding=padding, dilation=2)
    x = torch.randn(1, 4, 9, 9)
    wanted = layer(x)
    assert apriori.padded(layer) is layer
    assert layer.padding == found
    assert torch.equal(layer(x), wanted)
    assert apriori.chosen(nn.Sequential(layer, nn.Conv2d(64, 64, 3)), "one_way", 0.5)


def test_a_padding_that_is_wider_on_one_side_stays() -> None:
    layer = nn.Conv2d(4, 4, 4, padding="same")
    assert apriori.padded(layer).padding == "same"
