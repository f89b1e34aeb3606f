"""What is left of a network without some channels computes what it did with weights of zero for them."""

import abc
import random

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from convkit.compress import graph as graphs
from convkit.compress.analysis import analyse
from convkit.compress.apply import prepare
from convkit.compress.model import InputShape, Model, ModelRef, clone, sample_inputs, with_shapes
from convkit.compress.shrinking import cutting, levels
from convkit.compress.shrinking.coupling import Coupling, coupling
from convkit.compress.sources import factory
from tests.nets.small import NETS, loaded

EXACT = ("simplify", "fold_batch_norm")


def made(module: nn.Module, *shape: int) -> Model:
    torch.manual_seed(0)
    for tensor in module.parameters():
        nn.init.normal_(tensor, 0.0, 0.4)
    given = ModelRef("tests:module", shapes={"x": InputShape(("N", *shape), (1, *shape))})
    return with_shapes(factory.from_module(module.eval(), given))


def drawn(coupled: Coupling, seed: int) -> frozenset[int]:
    """Some classes of every family, though no tensor's every channel."""
    chance = random.Random(seed)
    found = {
        root
        for family in coupled.families
        for root in chance.sample(family.classes, chance.randint(0, len(family.classes) - 1))
    }
    return levels.never_empty(coupled, frozenset(found), {root: chance.random() for root in sorted(found)})


def both(model: Model, gone: frozenset[int]) -> tuple[Model, Model]:
    """The network without these channels, and the one with weights of zero for them."""
    parts = []
    for change in (cutting.cut, cutting.masked):
        own = clone(model.graph)
        parts.append(model.replace(graph=change(own, coupling(own), gone)))
    return parts[0], parts[1]


def check(model: Model, seed: int, *others: tuple[int, ...]) -> Coupling:
    coupled = coupling(model.graph)
    gone = drawn(coupled, seed)
    narrow, zeroed = both(model, gone)
    assert _count(narrow.graph) < _count(model.graph) or not gone
    for inputs in (sample_inputs(model.inputs), *({model.inputs[0].name: torch.randn(one)} for one in others)):
        for name, wanted in zeroed(inputs).items():
            found = narrow(inputs)[name]
            assert found.shape == wanted.shape
            assert float((found - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())
    return coupled


def _count(graph: fx.GraphModule) -> int:
    return sum(tensor.numel() for tensor in graph.parameters())


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("methods", [(), EXACT], ids=["as it is", "norms folded"])
def test_real_nets_without_some_channels(name: str, methods: tuple[str, ...]) -> None:
    """ConvNeXt's norms run over channels, so that zeros there are not what is left without them."""
    model = prepare(loaded(name), methods)
    coupled = coupling(model.graph)
    assert coupled.families
    if name == "convnext":
        narrow, _ = both(model, drawn(coupled, 0))
        assert {key: out.shape for key, out in narrow(sample_inputs(model.inputs)).items()} == {
            key: out.shape for key, out in model(sample_inputs(model.inputs)).items()
        }
        return
    for seed in range(3):
        check(model, seed, NETS[name].other)


class Body(nn.Module, abc.ABC):
    """A convolution before and one behind what is tried."""

    def __init__(self, channels: int, read: int, between: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, channels, 3, padding=1), nn.Conv2d(read, 4, 1)
        self.between = between

    @abc.abstractmethod
    def middle(self, x: Tensor) -> Tensor:
        """What is tried."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.middle(self.first(x)))
        return out


class Shuffled(Body):
    def middle(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.reshape(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w)


class Joined(Body):
    def middle(self, x: Tensor) -> Tensor:
        low, high = x.split([5, 7], 1)
        return torch.cat([high, low * 2, x[:, 2:6]], 1)


class Gated(Body):
    def __init__(self) -> None:
        super().__init__(12, 12)
        self.down, self.up = nn.Linear(12, 6), nn.Linear(6, 12)

    def middle(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3))))))[:, :, None, None]


class Enlarged(Body):
    def middle(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(x, 2)


class Picked(Body):
    def middle(self, x: Tensor) -> Tensor:
        return x[:, [7, 1, 1, 4, 0, 9]] + 1


class Padded(Body):
    def middle(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 3))


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 12, 3), nn.Linear(12 * 36, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(F.relu(self.first(x)).flatten(1))
        return out


class Grouped(Body):
    def __init__(self, groups: int, out: int) -> None:
        super().__init__(12, out)
        self.middle_conv = nn.Conv2d(12, out, 3, padding=1, groups=groups)

    def middle(self, x: Tensor) -> Tensor:
        found: Tensor = self.middle_conv(x)
        return found


class Transposed(Body):
    def __init__(self, groups: int) -> None:
        super().__init__(12, 8)
        self.up = nn.ConvTranspose2d(12, 8, 2, 2, groups=groups)

    def middle(self, x: Tensor) -> Tensor:
        found: Tensor = self.up(x)
        return found


class Twice(Body):
    """One layer that is called on what it made itself."""

    def __init__(self) -> None:
        super().__init__(12, 12)
        self.inner = nn.Conv2d(12, 12, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner(F.relu(self.inner(x)))
        return found


MADE = {
    "shuffle": lambda: Shuffled(12, 12),
    "join": lambda: Joined(12, 16),
    "gate": Gated,
    "pixel shuffle": lambda: Enlarged(12, 3),
    "pick": lambda: Picked(12, 6),
    "pad": lambda: Padded(12, 17),
    "flatten": Flat,
    "groups": lambda: Grouped(4, 8),
    "depthwise": lambda: Grouped(12, 24),
    "transposed": lambda: Transposed(1),
    "transposed groups": lambda: Transposed(4),
    "twice": Twice,
}


@pytest.mark.parametrize("kind", MADE)
def test_what_moves_channels_about(kind: str) -> None:
    model = made(MADE[kind](), 3, 8, 8)
    for seed in range(4):
        coupled = check(model, seed, (3, 3, 8, 8))
        assert coupled.families, coupled.held


def test_a_network_that_keeps_all_is_itself() -> None:
    model = with_shapes(loaded("mobilenet_v2"))
    narrow, _ = both(model, frozenset())
    inputs = sample_inputs(model.inputs)
    assert all(torch.equal(narrow(inputs)[name], wanted) for name, wanted in model(inputs).items())


def test_products_and_parameters_are_those_that_are_left() -> None:
    """By hand: 12 of 16 channels of the first layer, and all that read them."""
    model = made(Gated(), 3, 8, 8)
    coupled = coupling(model.graph)
    family = next(one for one in coupled.families if one.name == "first")
    assert family.made_by == ("first", "up")
    assert set(family.read_by) == {"down", "last"}
    narrow, _ = both(model, frozenset(family.classes[:4]))
    layers = {layer.name: layer for layer in analyse(with_shapes(narrow)).layers}
    assert layers["first"].macs == 8 * 3 * 9 * 64
    assert layers["last"].macs == 8 * 4 * 64
    assert _count(narrow.graph) == (8 * 27 + 8) + (8 * 6 + 6) + (6 * 8 + 8) + (8 * 4 + 4)
    assert next(one for one in graphs.computes(narrow.graph) if graphs.key(one) == "up")
