"""Real architectures from their factories: exact, dynamic, named like the source, trainable."""

import pytest
import torch
from torch import Tensor, nn

from convkit.compress.model import load
from convkit.compress.sources import factory
from tests.nets.small import NETS, ref

LAYERS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
)


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("name", NETS)
def test_a_net_is_its_source(name: str) -> None:
    given = ref(name)
    source, model = factory.build(given), load(given)
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
