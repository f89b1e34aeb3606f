"""Learned rounding: nearer to the float network than nearest rounding, on data it did not see; exported as it is."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from convkit.compress import graph as graphs
from convkit.compress import layer_rounding, patches, simulate, stored
from convkit.compress import target as targets
from convkit.compress.apply import apply, prepare
from convkit.compress.format import Integer
from convkit.compress.method import Batches
from convkit.compress.model import Model
from convkit.compress.plan import Plan
from tests.compress.network import EXACT, Net, batches, quantized, residual
from tests.compress.test_apply import codes, codes_in_engine, signal_to_noise

TARGET = targets.load("onnxruntime-cpu")
OPENVINO = targets.load("openvino-cpu")
SAMPLES = 8


def sequence() -> Net:
    """1-D: a convolution, a MatMul over the steps, a pooled classifier."""
    net = Net("N", 6, 16)
    net.op("Conv", "x", net.weight(net.normal(8, 6, 3)), net.weight(net.normal(8)), name="conv", pads=[1, 1])
    net.op("Transpose", "conv", name="turned", perm=[0, 2, 1])
    net.op("MatMul", "turned", net.weight(net.normal(8, 5)), name="product")
    net.op("Add", "product", net.weight(net.normal(5)), name="scores")
    return net


def volume() -> Net:
    """3-D: a grouped convolution and one that doubles the size again."""
    net = Net("N", 4, 4, 4, 4)
    net.op("Conv", "x", net.weight(net.normal(8, 2, 3, 3, 3)), net.weight(net.normal(8)), name="conv",
           pads=[1] * 6, group=2)  # fmt: skip
    source = net.op("Relu", "conv")
    net.op("Conv", source, net.weight(net.normal(6, 8, 3, 3, 3)), net.weight(net.normal(6)), name="scores")
    return net


def upscaler() -> Net:
    net = Net("N", 3, 6, 6)
    source = net.op("Relu", net.conv("x", 8, 3))
    net.op("ConvTranspose", source, net.weight(net.normal(8, 3, 4, 4)), net.weight(net.normal(3)), name="scores",
           strides=[2, 2], pads=[1] * 4)  # fmt: skip
    return net


def unbiased() -> Net:
    net = Net("N", 3, 8, 8)
    source = net.relu6(net.conv("x", 8, 3, bias=False))
    net.op("Conv", source, net.weight(net.normal(4, 8, 1, 1)), name="scores")
    return net


NETS = {"unbiased": unbiased, "residual": residual, "sequence": sequence, "volume": volume, "upscaler": upscaler}


@cache
def network(name: str) -> tuple[Model, Plan, Batches]:
    model = NETS[name]().model("scores")
    return model, quantized(model, OPENVINO if name == "upscaler" else TARGET)[1], batches(model, SAMPLES)


def made(name: str, weight: str, *methods: str, **changes: str) -> Model:
    model, plan, samples = network(name)
    layers = {
        key: replace(layer, weight=weight if layer.weight else None, weight_range="mse", **changes)  # type: ignore[arg-type]
        for key, layer in plan.layers.items()
    }
    target = targets.load(plan.target)
    return apply(model, replace(plan, layers=layers, methods=(*EXACT, *methods)), target, samples)


def noise(found: Model, name: str) -> float:
    """dB under the signal, on samples that nothing was learned from."""
    model, samples = network(name)[0], batches(network(name)[0], 4, 16, seed=7)
    return signal_to_noise(*(torch.cat([m(x)["scores"] for x in samples]) for m in (found, model)))


def held(model: Model) -> Mapping[str, stored.Weight]:
    found = [weight for node in model.graph.graph.nodes if (weight := stored.weight(node)) is not None]
    return {weight.node.meta["layer"]: weight for weight in found}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("weight", ["int4", "fp4_e2m1"])
def test_nearer_to_the_float_network(name: str, weight: str) -> None:
    nearest, corrected, learned = (
        noise(made(name, weight, *methods), name) for methods in ((), ("bias_correction",), ("learned_round",))
    )
    assert learned > max(nearest, corrected)


@pytest.mark.parametrize("method", ["learned_round", "learned_scale", "block_round"])
def test_weights_take_one_of_their_neighbours(method: str) -> None:
    """No weight is a step away from what it is in float, also on grids whose scales were learned too."""
    prepared = prepare(network("residual")[0], EXACT)
    exact = {graphs.key(node): node for node in graphs.computes(prepared.graph) if node.op == "call_module"}
    before, after = held(made("residual", "int4")), held(made("residual", "int4", method))
    assert len(before) == len(after) == 5
    moved = 0
    for name, weight in after.items():
        rows, grid = layer_rounding.float_rows(exact[name], weight.node), weight.grid()
        got = patches.rows(weight.node, weight.codes).double() * grid.scale
        assert bool(((got == grid.neighbours(rows)[0]) | (got == grid.neighbours(rows)[1])).all()), name
        moved += int((got != grid.nearest(rows)).sum())
        assert torch.equal(weight.scale, before[name].scale) == (method != "learned_scale"), name
    assert moved > 20


@pytest.mark.parametrize("method", ["learned_round", "learned_scale", "block_round", "norm_reestimation"])
@pytest.mark.parametrize("weight", ["int2", "int4", "int8"])
def test_codes_stay_in_the_format(weight: str, method: str) -> None:
    for found in held(made("residual", weight, method)).values():
        assert isinstance(found.format, Integer)
        assert found.format.low <= int(found.codes.min()) <= int(found.codes.max()) <= found.format.high


@pytest.mark.parametrize("changes", [{"granularity": "tensor"}, {"granularity": "block:2"}], ids=str)
def test_other_granularities(changes: dict[str, str]) -> None:
    name = "sequence"
    assert noise(made(name, "int4", "learned_round", **changes), name) > noise(made(name, "int4", **changes), name)


@pytest.mark.parametrize("method", ["learned_round", "learned_scale", "block_round", "norm_reestimation"])
def test_the_same_bytes_each_time(method: str) -> None:
    first, second = (made("residual", "int4", method).graph.state_dict() for _ in range(2))
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_nothing_is_left_for_bias_correction() -> None:
    learned, both = (made("residual", "int4", "learned_round", *more) for more in ((), ("bias_correction",)))
    (samples,) = batches(network("residual")[0], 1, 8)
    assert signal_to_noise(learned(samples)["scores"], both(samples)["scores"]) > 40


def test_a_dead_channel_is_left_alone() -> None:
    net = Net()
    weight = net.normal(6, 3, 3, 3)
    weight[2] = 0
    net.head(net.relu6(net.conv("x", 6, 3, weight=weight, offset=np.ones(6, np.float32))))
    model = net.model("scores")
    plan = quantized(model, TARGET)[1]
    found = apply(model, replace(plan, methods=(*EXACT, "learned_round")), TARGET, batches(model, SAMPLES))
    first = next(iter(held(found).values()))
    assert not bool(first.codes[2].any())
    assert bool(first.codes[1].any())


@pytest.mark.parametrize("method", ["learned_round", "learned_scale", "block_round", "norm_reestimation"])
def test_the_engine_computes_the_same_codes(method: str) -> None:
    """Four-bit weights: no kernel saturates its sums."""
    model = made("residual", "int4", method)
    (samples,) = batches(model, 1, 4, seed=3)
    found, engine = codes(simulate.integers(model), samples), codes_in_engine(model, samples)
    assert len(engine) == len(found) > 5
    assert all(np.array_equal(found[name], engine[name]) for name in engine)
