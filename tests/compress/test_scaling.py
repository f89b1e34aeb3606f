"""Fast compound scaling: products and elements go as the paper says, and what is left runs and can be trained."""

import math

import pytest
import torch

from convkit.compress import graph as graphs
from convkit.compress import scaling
from convkit.compress.errors import ConvkitError
from convkit.compress.model import Model, ModelRef, load, parse_shape, with_shapes
from convkit.compress.training import elastic
from convkit.compress.training.choice import Choice, Space


def resnet() -> Model:
    shapes = dict([parse_shape("x:Nx3x64x64")])
    return with_shapes(load(ModelRef("tests.nets.resnet:net", None, {"width": 32, "classes": 10}, shapes)))


def products(model: Model) -> float:
    whole = elastic.Elastic(model.graph, Space({}, (), {}))
    return elastic.products(whole.member(Choice()))


def elements(model: Model) -> int:
    """Of what convolutions write."""
    nodes = [node for node in graphs.computes(model.graph) if graphs.operator(node) == "Conv"]
    return sum(math.prod((graphs.shape(node) or (0,))[1:]) for node in nodes)


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_factors_make_up_the_share(share: float) -> None:
    scale = scaling.compound(share)
    assert scale.depth * scale.width**2 * scale.size**2 == pytest.approx(share)
    assert scale.width * scale.depth * scale.size**2 == pytest.approx(share**0.6)
    assert scaling.compound(share, 1.0) == scaling.Scale(1.0, share**0.5, 1.0)
    with pytest.raises(ConvkitError, match="a part of its products"):
        scaling.compound(2.0)


def test_a_network_is_scaled_and_trains_on() -> None:
    model, share = resnet(), 0.25
    scale = scaling.compound(share)
    small = with_shapes(scaling.scaled(model, share))
    wanted = scale.depth * scale.width**2
    assert products(small) / products(model) == pytest.approx(wanted, rel=0.25)
    assert elements(small) / elements(model) == pytest.approx(scale.depth * scale.width, rel=0.15)
    (made,) = small.graph(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert made.shape == (2, 10)
    made.square().sum().backward()
    assert all(parameter.grad is not None for parameter in small.graph.parameters() if parameter.requires_grad)


def test_all_of_a_network_is_the_network() -> None:
    model = resnet()
    x = {"x": torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))}
    with torch.no_grad():
        (one,), (other,) = model(x).values(), scaling.scaled(model, 1.0)(x).values()
    assert torch.equal(one, other)
