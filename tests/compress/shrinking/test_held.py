"""Channels that meet what would keep its size: they stay, and what else is free is cut all the same."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convkit.compress.model import Model, ModelRef, load, with_shapes
from tests.compress.network import Net
from tests.compress.shrinking.test_cutting import Body, check, made


class Deep(Body):
    """Two convolutions before what is tried, so that the channels of the first are free."""

    def __init__(self) -> None:
        super().__init__(8, 6)
        self.inner = nn.Conv2d(8, 6, 1)


class Tokens(Deep):
    """Channels last, a token that was learned before the first of them."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.mixed = nn.Parameter(torch.zeros(1, 1, 6)), nn.Linear(6, 6)

    def middle(self, x: Tensor) -> Tensor:
        rows = self.inner(F.relu(x)).flatten(2).transpose(1, 2)
        rows = self.mixed(torch.cat([self.token.expand(rows.shape[0], -1, -1), rows], 1))
        return rows.transpose(1, 2)[..., None]


class Rows(Deep):
    """A row of zeros above the image."""

    def middle(self, x: Tensor) -> Tensor:
        x = self.inner(F.relu(x))
        return torch.cat([x.new_zeros(x.shape[0], x.shape[1], 1, x.shape[3]), x], 2)


@pytest.mark.parametrize("kind", [Tokens, Rows])
def test_channels_beside_what_has_none_of_them_stay(kind: type[Deep]) -> None:
    model = made(kind(), 3, 8, 8)
    for seed in range(3):
        coupled = check(model, seed)
        assert "joins them to what has none of them" in coupled.held["inner"]
        assert "first" in {family.name for family in coupled.families}


class More(Body):
    def middle(self, x: Tensor) -> Tensor:
        return torch.cat([x.new_zeros(x.shape[0], 1, x.shape[2], x.shape[3]), x], 1)


class Above(Body):
    """The same channels twice, one image above the other."""

    def middle(self, x: Tensor) -> Tensor:
        return torch.cat([F.relu(x), x], 2)


@pytest.mark.parametrize("module", [More(8, 9), Above(8, 8)], ids=["more channels", "the same ones"])
def test_channels_beside_other_channels_are_free(module: Body) -> None:
    model = made(module, 3, 8, 8)
    for seed in range(3):
        coupled = check(model, seed)
        assert [family.width for family in coupled.families if family.name == "first"] == [8]


def _resized(*sizes: int, **attributes: object) -> Model:
    net = Net(1, 3, 8, 8)
    told = net.weight(np.array(sizes))
    return _loaded(net, net.conv(net.op("Resize", net.conv("x", 8, 3), "", "", told, **attributes), 4))


def _expanded(*sizes: int) -> Model:
    net = Net(1, 3, 8, 8)
    column = net.op("MaxPool", net.conv("x", 8, 3), kernel_shape=[1, 8])
    return _loaded(net, net.conv(net.op("Expand", column, net.weight(np.array(sizes))), 4))


def _loaded(net: Net, output: str) -> Model:
    """Of ONNX 18, in which Resize has axes."""
    proto = net.proto(output)
    proto.opset_import[0].version = 18
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        onnx.save(proto, path)
        return with_shapes(load(ModelRef(str(path))))


SIZED = {
    "axes": lambda: _resized(16, 16, axes=[2, 3]),
    "axes turned round": lambda: _resized(16, 24, axes=[3, 2]),
    "few sizes": lambda: _expanded(8, 8),
}


@pytest.mark.parametrize("kind", SIZED)
def test_sizes_of_some_axes_are_not_taken_for_channels(kind: str) -> None:
    model = SIZED[kind]()
    for seed in range(3):
        coupled = check(model, seed)
        assert "computes its sizes" in str(coupled.held) or "changes their number" in str(coupled.held)


def test_sizes_of_all_axes_are_told_anew() -> None:
    for model in (_resized(1, 8, 16, 16), _expanded(1, 8, 8, 8)):
        for seed in range(3):
            assert [family.width for family in check(model, seed).families] == [8]
