"""Members of an elastic network are networks of their own, whose gradients meet in its weights."""

import random

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convkit.compress.analysis import analyse
from convkit.compress.model import InputShape, Model, ModelRef, with_shapes
from convkit.compress.sources import factory
from convkit.compress.training import choice as choices
from convkit.compress.training.choice import Choice
from convkit.compress.training.elastic import Elastic, products
from tests.nets.small import loaded


class Small(nn.Module):
    """A stem, two residual blocks with a 7x7 depthwise kernel, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(16, 32, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 7, padding=3, groups=32),
                nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 1), nn.BatchNorm2d(16),
            )
            for _ in range(2)
        )  # fmt: skip
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        out: Tensor = self.head(x.mean((2, 3)))
        return out


def model() -> Model:
    torch.manual_seed(0)
    given = ModelRef("tests:module", shapes={"x": InputShape(("N", 3, 16, 16), (1, 3, 16, 16))})
    return with_shapes(factory.from_module(Small().eval(), given))


def small() -> Elastic:
    own = model()
    own.graph.train()
    return Elastic(own.graph, choices.space(own.graph, (0.75, 0.5), 8, depth=True, kernel=True))


def test_what_may_be_chosen() -> None:
    space = small().space
    assert {*space.widths} == {"stem.0", "blocks.0.0", "blocks.1.0"}
    assert space.widths["blocks.0.0"] == (32, 24, 16)
    assert [len(stage) for stage in space.stages] == [2]
    assert space.kernels == {"blocks.0.3": (7, 5, 3), "blocks.1.3": (7, 5, 3)}
    least = space.least
    assert least.widths == {"stem.0": 8, "blocks.0.0": 16, "blocks.1.0": 16}
    assert len(least.out) == 1
    assert least.kernels == {"blocks.0.3": 3, "blocks.1.3": 3}


def test_the_whole_is_the_network() -> None:
    own, elastic = model(), small()
    x = torch.randn(4, 3, 16, 16)
    own.graph.train()
    torch.testing.assert_close(elastic.member(Choice())(x)[0], own.graph(x)[0])


@pytest.mark.parametrize("seed", range(6))
def test_a_member_is_the_network_that_is_written_of_it(seed: int) -> None:
    """With the same weights, statistics and products."""
    elastic = small()
    with torch.no_grad():
        for matrix in elastic.matrices.values():
            matrix.add_(0.1 * torch.randn_like(matrix))
    member = elastic.member(elastic.space.drawn(random.Random(seed)))
    member.recalibrate([(torch.randn(8, 3, 16, 16),)])
    x = torch.randn(3, 3, 16, 16)
    written = member.network().eval()
    torch.testing.assert_close(written(x)[0], member(x)[0])
    made = with_shapes(model().replace(graph=written))
    assert sum(layer.macs for layer in analyse(made).layers) == products(member)
    assert sum(tensor.numel() for tensor in written.parameters()) == sum(t.numel() for t in member.weights().values())


@pytest.mark.parametrize("seed", range(4))
def test_a_member_is_the_network_cut_to_its_shapes(seed: int) -> None:
    """The weights themselves are cut here, not their places."""
    from convkit.compress.model import clone
    from convkit.compress.shrinking import cutting, residual, shrink
    from convkit.compress.shrinking.coupling import coupling

    elastic = small()
    drawn = elastic.space.drawn(random.Random(seed))
    choice = Choice(drawn.widths, drawn.out)
    own = clone(elastic.graph)
    coupled = coupling(own)
    worth = {root: -float(root) for family in coupled.families for root in family.classes}
    residual.leave_out(own, choice.out)
    cutting.cut(own, coupled, shrink.gone(coupled, worth, choice.widths))
    x = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(elastic.member(choice)(x)[0], own(x)[0])


class Twice(nn.Module):
    """One convolution called twice, with a norm of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.inner(F.relu(self.inner(x))))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


def test_a_layer_that_is_called_twice_has_one_weight() -> None:
    torch.manual_seed(0)
    given = ModelRef("tests:module", shapes={"x": InputShape(("N", 3, 16, 16), (1, 3, 16, 16))})
    own = with_shapes(factory.from_module(Twice().eval(), given))
    elastic = Elastic(own.graph, choices.space(own.graph, (0.5,), 8, depth=False, kernel=False))
    member = elastic.member(elastic.space.least)
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(member.network()(x)[0], member(x)[0])
    assert sum(tensor.numel() for tensor in elastic.graph.parameters()) > sum(
        t.numel() for t in member.weights().values()
    )


def test_gradients_of_members_meet_in_one_set_of_weights() -> None:
    """Those of a sum are the sum of those; what a member lacks, it does not touch."""
    x = torch.randn(4, 3, 16, 16)
    found = []
    for chosen in ((Choice(),), ("least",), (Choice(), "least")):
        elastic = small()
        for one in chosen:
            member = elastic.member(elastic.space.least if one == "least" else Choice())
            member(x)[0].square().sum().backward()
        found.append({n: p.grad for n, p in elastic.named_parameters() if p.grad is not None})
    whole, least, both = found
    for name, gradient in both.items():
        parts = [one[name] for one in (whole, least) if name in one]
        torch.testing.assert_close(gradient, torch.stack(parts).sum(0), rtol=1e-4, atol=1e-5)
    outside = least["graph.blocks.0.0.weight"].flatten(1).abs().sum(1) == 0
    assert int(outside.sum()) == 16


def test_smaller_kernels_are_the_middle_of_larger_ones() -> None:
    elastic = small()
    member = elastic.member(Choice(kernels={"blocks.0.3": 3}))
    whole = elastic.graph.get_submodule("blocks.0.3").weight
    torch.testing.assert_close(member.weights()["blocks.0.3.weight"], whole[..., 2:5, 2:5])


def test_ranked_channels_are_kept() -> None:
    from convkit.compress.shrinking.coupling import coupling

    elastic = small()
    (family,) = [one for one in coupling(elastic.graph).families if one.name == "blocks.0.0"]
    elastic.reorder(
        {root: float(at) for one in coupling(elastic.graph).families for at, root in enumerate(one.classes)}
    )
    member = elastic.member(Choice(widths={"blocks.0.0": 16}))
    whole = elastic.graph.get_submodule("blocks.0.0").weight
    torch.testing.assert_close(member.weights()["blocks.0.0.weight"], whole[16:])
    assert family.width == 32


@pytest.mark.parametrize("name", ["resnet", "mobilenet_v2", "mobilenet_v3", "efficientnet", "regnet", "shufflenet"])
def test_real_nets_are_elastic(name: str) -> None:
    own = with_shapes(loaded(name))
    own.graph.train()
    elastic = Elastic(own.graph, choices.space(own.graph, (0.5,), 1, depth=True, kernel=True))
    x = torch.randn(4, *own.inputs[0].sample[1:])
    sizes = [products(elastic.member(one)) for one in (elastic.space.whole, elastic.space.least)]
    assert sizes[1] < 0.6 * sizes[0]
    loss = F.cross_entropy(elastic.member(elastic.space.least)(x)[0], torch.arange(4))
    loss.backward()
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in elastic.parameters())
