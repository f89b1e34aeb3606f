"""A layer that is called more than once, as heads over several scales are: each call is planned on its own, its weight
is held once."""

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from convkit.compress import graph as graphs
from convkit.compress import placement, promotion, simulate
from convkit.compress import target as targets
from convkit.compress.analysis import analyse
from convkit.compress.apply import prepare
from convkit.compress.model import Model, ModelRef, parse_shape
from convkit.compress.sources import factory
from convkit.export.onnx import size_in_bytes, to_onnx
from tests import here
from tests.compress.network import EXACT, batches, quantized

TARGET = targets.load("onnxruntime-cpu")
CHANNELS = 24


class Pyramid(nn.Module):
    """One tower over two scales, with a norm for each where they are `normed`."""

    def __init__(self, *, normed: bool) -> None:
        super().__init__()
        self.stem, self.tower = nn.Conv2d(3, CHANNELS, 3, padding=1), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(CHANNELS) if normed else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.stem(x).relu()
        levels = zip(self.norms, (fine, nn.functional.max_pool2d(fine, 2)), strict=True)
        return torch.cat([norm(self.tower(level)).relu().mean((2, 3)) for norm, level in levels], 1)


def pyramid(*, normed: bool) -> Model:
    torch.manual_seed(0)
    net = Pyramid(normed=normed).eval()
    for norm in net.norms if normed else ():
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    shapes = dict([parse_shape("x:Nx3x12x14")])
    return factory.from_module(net, ModelRef("pyramid:net", None, {}, shapes))


def towers(model: Model) -> list[str]:
    return [str(node.target) for node in model.graph.graph.nodes if str(node.target).startswith("tower")]


def test_each_call_is_a_layer_with_the_same_parameters() -> None:
    model = pyramid(normed=True)
    assert towers(model) == ["tower", "tower_1"]
    assert model.graph.get_parameter("tower.weight") is model.graph.get_parameter("tower_1.weight")
    found = {layer.name: layer for layer in analyse(model).layers}
    assert (found["tower"].parameters, found["tower_1"].parameters) == (CHANNELS**2 * 9 + CHANNELS, 0)
    assert found["tower"].macs == 4 * found["tower_1"].macs > 0


def test_norms_behind_the_calls_are_folded_each_into_its_own() -> None:
    model = pyramid(normed=True)
    (samples,) = batches(model)[:1]
    folded = prepare(model, EXACT)
    assert "BatchNormalization" not in {graphs.operator(node) for node in graphs.computes(folded.graph)}
    for name, wanted in model(samples).items():
        torch.testing.assert_close(folded(samples)[name], wanted, rtol=1e-5, atol=1e-5)


def test_both_are_quantized_and_the_engine_runs_what_is_simulated() -> None:
    for normed in (True, False):
        model = pyramid(normed=normed)
        made, plan = quantized(model, TARGET, methods=EXACT)
        assert {"tower", "tower_1"} <= plan.layers.keys()
        (samples,) = batches(model)[:1]
        session = onnxruntime.InferenceSession(to_onnx(made).SerializeToString(), here.exact())
        (found,) = session.run(None, {name: tensor.numpy() for name, tensor in samples.items()})
        (wanted,) = simulate.integers(made)(samples).values()
        (exact,) = model(samples).values()
        torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-4, atol=1e-4)
        assert (wanted - exact).square().sum() < 1e-3 * exact.square().sum()


@pytest.mark.parametrize("method", ["bias_correction", "learned_round"])
def test_what_is_learned_of_biases_in_float_is_each_calls_own(method: str) -> None:
    """TensorRT has no integer biases."""
    model = pyramid(normed=False)
    made, _ = quantized(model, targets.load("trt-rtx"), methods=(*EXACT, method))
    biases = [value for name, value in made.graph.named_buffers() if "tower" in name and name.endswith("bias")]
    assert len({value.data_ptr() for value in biases}) == len(biases) == 2
    assert not torch.equal(*biases)


def test_a_weight_in_float_is_in_the_file_once() -> None:
    model, weight = pyramid(normed=False), CHANNELS**2 * 9
    assert size_in_bytes(to_onnx(model)) < 1.2 * 4 * weight


def test_norms_without_weights_share_none() -> None:
    model = pyramid(normed=True)
    for norm in (model.graph.get_submodule(f"norms.{place}") for place in range(2)):
        norm.weight = norm.bias = None
    found = promotion.plan_bytes(model.graph, {})
    assert found["norms.0"] == found["norms.1"] == 2 * 4 * CHANNELS


def test_bytes_of_a_plan_count_it_once_as_long_as_it_is_in_float() -> None:
    model, weight = pyramid(normed=False), CHANNELS**2 * 9
    layers = placement.place(prepare(model, EXACT).graph, TARGET)
    found = promotion.plan_bytes(model.graph, {})
    assert (found["tower"], found["tower_1"]) == (4 * (weight + CHANNELS), 0)
    found = promotion.plan_bytes(model.graph, layers)
    assert weight < found["tower"] == found["tower_1"] < 1.2 * weight
    found = promotion.plan_bytes(model.graph, {"tower": layers["tower"]})
    assert found["tower_1"] == 4 * (weight + CHANNELS)
