"""Every method that says it is exact is, on every architecture; bias correction takes off the mean error it is for."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convkit.compress import graph as graphs
from convkit.compress import parts
from convkit.compress import target as targets
from convkit.compress.apply import apply, apply_prepared, prepare
from convkit.compress.method import Method, Samples
from convkit.compress.methods import bias_correction
from convkit.compress.model import Model, load
from convkit.compress.plan import Plan
from tests.compress.network import EXACT, Net, batches, kinds, quantized, residual
from tests.nets.small import NETS
from tests.nets.small import ref as shipped

TARGET = targets.load("onnxruntime-cpu")
METHODS = {name: parts.load("compress/methods", name) for name in parts.names("compress/methods")}
BEFORE = tuple(name for name, method in METHODS.items() if method.before and method.exact)
TOLERANCE = 1e-5


@cache
def network(name: str) -> Model:
    return load(shipped(name))


def largest_difference(one: Model, other: Model, samples: Samples) -> float:
    """Of any output, relative to its largest value."""
    found, wanted = one(samples), other(samples)
    assert list(found) == list(wanted)
    return max(float((found[key] - wanted[key]).abs().max() / wanted[key].abs().max()) for key in wanted)


def inputs(model: Model, shape: tuple[int, ...], seed: int = 1) -> Samples:
    return {model.inputs[0].name: torch.randn(shape, generator=torch.Generator().manual_seed(seed))}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("methods", [*((name,) for name in BEFORE), EXACT, (*EXACT, "equalize")], ids="+".join)
def test_the_network_computes_the_same(name: str, methods: tuple[str, ...]) -> None:
    model = network(name)
    samples = [inputs(model, model.inputs[0].sample, seed=2)]
    changed = prepare(model, methods, samples)
    for shape in (model.inputs[0].sample, NETS[name].other):
        assert largest_difference(changed, model, inputs(model, shape)) <= TOLERANCE
    again = prepare(changed, methods, samples)
    assert largest_difference(again, changed, inputs(model, NETS[name].other)) <= TOLERANCE


def test_a_method_is_described() -> None:
    for name, method in METHODS.items():
        assert isinstance(method, Method), name
        assert parts.about("compress/methods", name)
        assert method.before or not (method.exact or method.sees)


@pytest.mark.parametrize(
    ("name", "left"), [("resnet", 0), ("mobilenet_v2", 0), ("regnet", 0), ("shufflenet", 0), ("unet", 0), ("watch", 3)]
)
def test_batch_norms_are_folded(name: str, left: int) -> None:
    """The three of `watch` normalize a gate's product: there is no layer to fold them into."""
    model = prepare(network(name), ("fold_batch_norm",))
    assert kinds(model).count("BatchNormalization") == left


def test_a_folded_network_has_the_norms_tensor_names() -> None:
    model = prepare(residual().model("scores"), EXACT)
    convs = [graphs.value(node) for node in graphs.computes(model.graph) if graphs.operator(node) == "Conv"]
    assert convs == ["batchnormalization1", "batchnormalization4", "batchnormalization7", "batchnormalization10"]


def test_a_norm_over_a_sequence_is_not_folded_into_its_linear() -> None:
    """Its channels are the steps, axis 1, also where there are as many steps as features."""
    net = Net("N", 6, 4)
    linear = net.op("MatMul", "x", net.weight(net.normal(4, 6)))
    values = [1 + net.normal(6, gain=0.2), net.normal(6), net.normal(6), np.abs(net.normal(6)) + np.float32(0.5)]
    model = net.model(net.op("BatchNormalization", linear, *map(net.weight, values)))
    changed = prepare(model, ("fold_batch_norm",))
    assert "BatchNormalization" in kinds(changed)
    assert largest_difference(changed, model, inputs(model, (3, 6, 4))) <= TOLERANCE


@settings(max_examples=15)
@given(groups=st.sampled_from([1, 2, 4]), seed=st.integers(0, 99), transposed=st.booleans())
def test_folding_into_grouped_and_transposed_convolutions(groups: int, seed: int, transposed: bool) -> None:
    net = Net("N", 8, 5, 5, seed=seed)
    if transposed:
        weight = net.weight(net.normal(8, 4, 3, 3, gain=0.3))
        made = net.op("ConvTranspose", "x", weight, group=groups, strides=[2, 2], kernel_shape=[3, 3])
        net._channels[made] = 4 * groups
    else:
        made = net.conv("x", 12, 3, group=groups)
    model = net.model(net.norm(made))
    changed = prepare(model, ("fold_batch_norm",))
    assert kinds(changed) == ["ConvTranspose" if transposed else "Conv"]
    assert largest_difference(changed, model, inputs(model, (2, 8, 5, 5))) <= TOLERANCE


def test_a_mean_over_the_image_becomes_pooling() -> None:
    net = Net()
    features = net.conv("x", 4)
    pooled = [net.op("ReduceMean", features, axes=[2, 3], keepdims=keep, name=f"mean{keep}") for keep in (0, 1)]
    others = [net.op("ReduceMean", features, axes=axes, name=f"kept{i}") for i, axes in enumerate(([2], [1, 2, 3]))]
    model = net.model(*pooled, *others)
    changed = prepare(model, ("simplify",))
    assert kinds(changed).count("GlobalAveragePool") == 2
    assert kinds(changed).count("ReduceMean") == 2
    assert largest_difference(changed, model, inputs(model, (2, 3, 8, 8))) <= TOLERANCE


def ranges(model: Model) -> Iterator[torch.Tensor]:
    """The largest weight of each output channel, by convolution."""
    for node in graphs.computes(model.graph):
        layer = graphs.module(node)
        if layer is not None:
            yield layer.weight.detach().abs().flatten(1).amax(1)


def scaled_pair(activation: str, factor: np.ndarray) -> Model:
    """Two convolutions whose channels between them were scaled apart, which no function sees."""
    net = Net(seed=4)
    weight, offset, after = net.normal(6, 3, 3, 3, gain=0.3), net.normal(6), net.normal(4, 6, 1, 1, gain=0.5)
    first = net.conv("x", 6, 3, weight=weight * factor[:, None, None, None], offset=offset * factor)
    between = net.op(activation, first) if activation else first
    return net.model(net.conv(between, 4, weight=after / factor[None, :, None, None]))


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu", ""])
def test_equalizing_evens_out_the_channels(activation: str) -> None:
    model = scaled_pair(activation, np.float32([1e-2, 0.1, 1, 10, 20, 30]))
    changed = prepare(model, ("equalize",))
    assert largest_difference(changed, model, inputs(model, (2, 3, 8, 8))) <= TOLERANCE
    (before, _), (after, _) = (list(ranges(each)) for each in (model, changed))
    assert float(before.max() / before.min()) > 1000
    assert float(after.max() / after.min()) < 10


@pytest.mark.parametrize("activation", ["Clip", "Sigmoid"])
def test_equalizing_leaves_what_is_not_homogeneous(activation: str) -> None:
    net = Net(seed=4)
    first = net.conv("x", 6, 3)
    between = net.relu6(first) if activation == "Clip" else net.op(activation, first)
    model = net.model(net.conv(between, 4))
    changed = prepare(model, ("equalize",))
    assert all(torch.equal(one, other) for one, other in zip(ranges(model), ranges(changed), strict=True))


@pytest.mark.parametrize("dead", ["first", "second"])
def test_equalizing_survives_dead_channels(dead: str) -> None:
    net = Net(seed=4)
    weight, after = net.normal(6, 3, 3, 3, gain=0.3), net.normal(4, 6, 1, 1, gain=0.5)
    (weight[2:4] if dead == "first" else after[:, 2:4])[...] = 0
    model = net.model(net.conv(net.op("Relu", net.conv("x", 6, 3, weight=weight)), 4, weight=after))
    changed = prepare(model, ("equalize",))
    assert largest_difference(changed, model, inputs(model, (2, 3, 8, 8))) <= TOLERANCE


def test_equalizing_leaves_tied_weights_to_the_others() -> None:
    """One kernel in two layers: scaling it for the one must not change the other."""
    net = Net("N", 4, 8, 8, seed=2)
    weight, bias = net.weight(net.normal(4, 4, 3, 3, gain=0.3)), net.weight(net.normal(4))
    geometry = {"pads": [1] * 4, "kernel_shape": [3, 3]}
    one = net.op("Relu", net.op("Conv", "x", weight, bias, **geometry))
    two = net.op("Relu", net.op("Conv", one, weight, bias, **geometry))
    net._channels[two] = 4
    model = net.model(net.conv(two, 4))
    changed = prepare(model, ("equalize",))
    assert largest_difference(changed, model, inputs(model, (2, 4, 8, 8))) <= TOLERANCE


def test_equalizing_a_layer_leaves_another_that_shares_its_weight() -> None:
    net = Net("N", 4, 8, 8, seed=2)
    weight = net.normal(4, 4, 3, 3, gain=0.3) * np.float32([1, 5, 20, 0.1])[:, None, None, None]
    second = net.conv(net.op("Relu", net.conv("x", 4, 3, weight=weight)), 4, 3, weight=weight)
    model = net.model(net.conv(net.op("Relu", second), 4))
    one, other, _ = [module for module in model.graph.modules() if isinstance(module, torch.nn.Conv2d)]
    other.weight = one.weight
    changed = prepare(model, ("equalize",))
    assert largest_difference(changed, model, inputs(model, (2, 4, 8, 8))) <= TOLERANCE


def channel_means(model: Model, samples: list[Samples], names: list[str]) -> dict[str, torch.Tensor]:
    """Mean of every channel of the named convolutions' results over all samples."""
    found: dict[str, list[torch.Tensor]] = {name: [] for name in names}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            result = super().run_node(n)
            if graphs.operator(n) in ("Conv", "Gemm") and n.meta.get("layer") in found:
                found[n.meta["layer"]].append(result.transpose(0, 1).flatten(1))
            return result

    with torch.no_grad():
        for batch in samples:
            Recorder(model.graph).run(*batch.values())
    return {name: torch.cat(parts, 1).mean(1) for name, parts in found.items()}


@pytest.mark.parametrize("batch", ["N", 1, 3])
def test_bias_correction_takes_the_mean_error_off(batch: int | str) -> None:
    """On the calibration data, to a step of the bias, at every layer; batches run in step whatever their size."""
    model = residual(batch, 3, 8, 8, seed=1).model("scores")
    samples = batches(model, 6 if batch == 1 else 2)
    plan = quantized(model, TARGET)[1]
    plain, corrected = (
        apply(model, Plan(plan.model, plan.target, methods, plan.layers, plan.ranges), TARGET, samples)
        for methods in (EXACT, (*EXACT, "bias_correction"))
    )
    weighted = [name for name, layer in plan.layers.items() if layer.weight]
    exact = channel_means(prepare(model, EXACT), samples, weighted)
    before, after = (channel_means(each, samples, weighted) for each in (plain, corrected))
    for name in weighted:
        errors = [float((means[name] - exact[name]).abs().max()) for means in (before, after)]
        assert errors[1] < 1e-3
        assert errors[1] <= errors[0]
    total = [sum(float((m[n] - exact[n]).square().sum()) for n in weighted) for m in (before, after)]
    assert total[1] < 0.01 * total[0]


def test_bias_correction_leaves_the_float_network_alone() -> None:
    model = residual().model("scores")
    weights = {name: tensor.clone() for name, tensor in model.graph.state_dict().items()}
    quantized(model, TARGET, methods=(*EXACT, "bias_correction"))
    assert all(torch.equal(model.graph.state_dict()[name], tensor) for name, tensor in weights.items())


def test_bias_correction_runs_the_float_network_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For all networks that are made from it; other samples have other means."""
    model, samples, ran = residual().model("scores"), batches(residual().model("scores")), []
    plan = replace(quantized(model, TARGET)[1], methods=(*EXACT, "bias_correction"))
    prepared, run = prepare(model, EXACT), bias_correction.run_together
    monkeypatch.setattr(bias_correction, "run_together", lambda graph, *rest: (ran.append(graph), run(graph, *rest)))
    first, again = (apply_prepared(prepared, plan, TARGET, samples) for _ in range(2))
    assert ran.count(prepared.graph) == 1
    apply_prepared(prepared, plan, TARGET, list(samples))
    assert ran.count(prepared.graph) == 2
    assert all(torch.equal(again.graph.state_dict()[name], one) for name, one in first.graph.state_dict().items())


@settings(max_examples=25)
@given(
    channels=st.integers(1, 9),
    groups=st.sampled_from([1, 3]),
    pads=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    size=st.sampled_from([(8, 9), ("H", "W")]),
)
def test_an_image_with_empty_channels_gives_the_same_features(
    channels: int, groups: int, pads: list[int], size: tuple[int | str, ...]
) -> None:
    net = Net("N", channels * groups, *size)
    weight = net.weight(net.normal(6, channels, 3, 3, gain=0.3))
    made = net.op("Conv", "x", weight, pads=pads, strides=[2, 2], group=groups, kernel_shape=[3, 3])
    model = net.model(made)
    changed = prepare(model, ("align_channels",))
    added = kinds(changed).count("Pad") - kinds(prepare(model, ())).count("Pad")
    assert added == (groups == 1 and channels in {3, 6, 7, 9})
    assert largest_difference(changed, model, inputs(model, (2, channels * groups, 8, 9))) <= TOLERANCE


def test_an_image_is_padded_once_for_all_who_read_it() -> None:
    net = Net("N", 3, 8, 8)
    model = net.model(net.op("Add", net.conv("x", 5, 3), net.conv("x", 5, 1)))
    changed = prepare(model, ("align_channels",))
    assert kinds(changed).count("Pad") == 1
    assert largest_difference(changed, model, inputs(model, (2, 3, 8, 8))) <= TOLERANCE
