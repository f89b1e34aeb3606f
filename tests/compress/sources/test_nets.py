"""Real architectures from their factories: exact, dynamic, named like the source, trainable."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convkit.compress.model import ModelRef, load, parse_shape
from convkit.compress.sources import factory

LAYERS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
)


@dataclass(frozen=True)
class Net:
    shape: str
    other: tuple[int, ...]
    """Another size that the shape allows: an odd batch, and another image where that is free."""
    args: Mapping[str, Any] = field(default_factory=dict)


NETS = {
    "resnet": Net("x:Nx3xH=64xW=64", (3, 3, 75, 50), {"width": 8, "classes": 10}),
    "resnet50": Net("x:Nx3x64x64", (3, 3, 64, 64), {"depth": 50, "width": 8, "classes": 10}),
    "mobilenet_v2": Net("x:Nx3xH=64xW=64", (5, 3, 96, 33), {"width": 0.25, "classes": 10}),
    "mobilenet_v3": Net("x:Nx3x64x64", (3, 3, 64, 64), {"width": 0.5, "classes": 10}),
    "efficientnet": Net("x:Nx3x64x64", (3, 3, 64, 64), {"width": 0.25, "classes": 10}),
    "convnext": Net("x:Nx3xH=64xW=64", (3, 3, 96, 64), {"width": 8, "depths": (1, 1, 2, 1), "classes": 10}),
    "regnet": Net("x:Nx3x64x64", (3, 3, 64, 64), {"depths": (1, 1, 2, 1), "widths": (16, 24, 32, 40), "classes": 10}),
    "shufflenet": Net("x:Nx3xH=64xW=64", (3, 3, 32, 96), {"repeats": (2, 2, 2), "channels": (8, 16, 24, 32, 40)}),
    "unet": Net("x:Nx3xH=32xW=48", (3, 3, 37, 50), {"width": 8, "depth": 2}),
    "espcn": Net("x:Nx1xH=24xW=24", (3, 1, 17, 30), {"width": 16}),
    "watch": Net("series:Nx6xT=100", (3, 6, 77)),
    "volume": Net("volume:Nx1xD=8xH=16xW=16", (3, 1, 4, 24, 8), {"width": 4}),
}


def _ref(name: str) -> ModelRef:
    net = NETS[name]
    return ModelRef(f"tests.nets.{name.rstrip('0').rstrip('5')}:net", None, net.args, dict([parse_shape(net.shape)]))


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("name", NETS)
def test_a_net_is_its_source(name: str) -> None:
    ref = _ref(name)
    source, model = factory.build(ref), load(ref)
    (spec,) = model.inputs
    for shape in (spec.sample, NETS[name].other):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            wanted = source(x)
        wanted = wanted if isinstance(wanted, dict) else {"output": wanted}
        found = model({spec.name: x})
        assert list(found) == list(wanted)
        for key, value in wanted.items():
            assert relative(found[key], value) <= 1e-5
    assert _layers(model.graph) == _layers(source)
    _every_parameter_learns(model.graph, torch.randn(spec.sample))
    values = [node.meta["value"] for node in model.graph.graph.nodes if node.op != "output"]
    assert len(set(values)) == len(values)


def _layers(module: nn.Module) -> dict[str, tuple[type, torch.Size]]:
    layers = sorted((name, layer) for name, layer in module.named_modules() if type(layer) in LAYERS)
    return {name: (type(layer), layer.weight.shape) for name, layer in layers}


def _every_parameter_learns(module: nn.Module, x: Tensor) -> None:
    results = module(x)
    sum(result.square().sum() for result in results).backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
