"""Weights of channels and biases move in proportion to what they are, however norms were folded into them."""

from dataclasses import replace

import pytest
import torch

from convkit.compress import format as formats
from convkit.compress import patches
from convkit.compress import target as targets
from convkit.compress.apply import apply_prepared, prepare
from convkit.compress.model import Model
from convkit.compress.training import quantized, steps
from convkit.compress.training.cycle import Cycle
from convkit.compress.training.distilled import Target
from convkit.compress.training.layers import Layer
from convkit.compress.training.loop import Schedule
from convkit.compress.training.quantized import Aim
from convkit.compress.training.samples import Arrays
from convkit.compress.training.trainable import Network
from tests.compress.network import EXACT, Net, batches
from tests.compress.network import quantized as rounded
from tests.compress.training.test_quantized import SCHEDULE, inputs
from tests.compress.training.test_trainable import network

TARGET = targets.load("onnxruntime-cpu")


def four_bits() -> Network:
    return network("residual", "onnxruntime-cpu", "int4", "channel")[0]


def rows(layer: Layer) -> torch.Tensor:
    return patches.outputs_first(layer.node, layer.weight.weight.detach()).flatten(1)


def test_units_are_sizes_of_channels() -> None:
    found = four_bits()
    units = found.units()
    for layer in found.layers:
        unit = patches.outputs_first(layer.node, units[id(layer.weight.weight)]).flatten(1)
        assert torch.equal(unit, unit[:, :1].expand_as(unit))
        assert torch.allclose(unit[:, 0] * steps.USUAL, rows(layer).square().mean(1).sqrt())
        if layer.bias is not None and layer.reads is not None:
            zero = layer.reads.rounds.get_buffer("zero")
            read = layer.reads.rounds.scale() * torch.maximum(255 - zero, zero) / 4
            assert torch.allclose(units[id(layer.bias)], unit[:, 0] * read)


@pytest.mark.parametrize(("weight", "rate"), [("int8", 1.15e-5), ("int4", 2.1e-4), ("int2", 1.25e-3)])
def test_the_usual_rate_moves_weights_by_a_part_of_their_step(weight: str, rate: float) -> None:
    """Each is 0.4 % of the step between codes of normally distributed weights of size 0.1."""
    assert steps.rate([formats.load(weight)]) == pytest.approx(rate, rel=0.02)
    both = [formats.load(name) for name in (weight, "bf16", "fp32")]
    assert steps.rate(both) == steps.rate(both[:1])  # those with scales decide
    assert steps.rate([]) == 3e-4  # nothing is rounded


def test_a_channel_of_zeros_can_learn() -> None:
    (layer, *_) = four_bits().layers
    with torch.no_grad():
        layer.weight.weight[0] = 0
    unit = steps.units([layer])[id(layer.weight.weight)]
    assert 0 < float(unit[0].max()) < 0.01 * float(unit[1:].max())


def test_a_step_is_a_part_of_what_it_changes() -> None:
    """AdamW's first step is the rate itself, whatever the gradient: here times the unit."""
    found = four_bits()
    own, _ = found.parameters()
    before = [one.detach().clone() for one in own]
    updates = Cycle([(own, 1, 0)], Schedule(1, rate=1e-3, decay=0.0), 1, found.units())
    updates.update([found.graph(*inputs(16, 0))[0].square().mean()])
    units = found.units()
    for layer in found.layers:
        (known,) = (old for old, one in zip(before, own, strict=True) if one is layer.weight.weight)
        moved = (layer.weight.weight.detach() - known).abs()
        size = patches.outputs_first(layer.node, known).flatten(1).square().mean(1).sqrt() / steps.USUAL
        assert torch.allclose(moved.amax(), (1e-3 * size).amax(), rtol=0.01)
    assert len(units) > len(found.layers)  # biases have theirs


@pytest.mark.parametrize("factor", [1 / 64, 64])
def test_layers_of_unlike_sizes_learn_as_alike_ones_do(factor: float) -> None:
    """What one layer makes larger the next makes smaller, as norms that are folded do."""
    found = []
    for times in (1.0, factor):
        model = _unlike(times)
        made, plan = rounded(model, TARGET)
        low = {name: replace(layer, weight="int3") if layer.weight else layer for name, layer in plan.layers.items()}
        prepared = prepare(model, EXACT)
        one = Network(apply_prepared(prepared, replace(plan, layers=low), TARGET), prepared)
        held = _inputs(32, 1)
        goal = Aim(Target(made.replace(graph=prepared.graph), held, 16), 1.0, None, held, None)
        *_, (_, state) = quantized.train(one, Arrays(_inputs(96, 0)), goal, SCHEDULE)
        found.append(state.judged)
    alike, unlike = found
    assert unlike[0] == pytest.approx(alike[0], rel=1e-3)
    assert min(unlike) < 1.5 * min(alike) < 0.5 * alike[0]


def _unlike(times: float) -> Model:
    net = Net()
    net.head(net.op("Relu", net.conv(net.op("Relu", net.conv("x", 8, 3)), 8, 3)))
    model = net.model("scores")
    first, second = (m for m in model.graph.modules() if isinstance(m, torch.nn.Conv2d))
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.mul_(times)
        second.weight.div_(times)
    return model


def _inputs(count: int, seed: int) -> tuple[torch.Tensor, ...]:
    return tuple(batches(_unlike(1.0), 1, count, seed=seed)[0].values())
