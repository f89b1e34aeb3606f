"""Integer weights: a scale for each channel, biases that fit, and channels that hold nothing but their bias."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from convkit.compress import format as formats
from convkit.compress import graph as graphs
from convkit.compress import target as targets
from convkit.compress import weights
from convkit.compress.apply import apply
from convkit.compress.model import Model
from convkit.compress.plan import LayerPlan, Plan, Range
from convkit.export.onnx import to_onnx
from tests.compress.network import Net, batches, kinds, quantized

TARGET = targets.load("onnxruntime-cpu")
INT8 = formats.load("int8")
every_rule = pytest.mark.parametrize("rule", weights.RANGES)
tensors = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 4), st.just(3)),
    elements=st.floats(-8, 8, width=32, allow_subnormal=False),
).map(torch.from_numpy)


@every_rule
@given(weight=tensors)
def test_a_scale_for_each_channel(rule: str, weight: torch.Tensor) -> None:
    scale = weights.channel_scale(weight, INT8, rule)
    assert scale.shape == (len(weight),)
    assert bool((scale > 0).all())
    peak = weight.abs().flatten(1).amax(1)
    assert bool((peak <= scale * 127 / INT8.fractions().min() * (1 + 1e-5)).all())


@pytest.mark.parametrize("name", ["int8", "int2", "fp8_e4m3", "e3m4"])
@settings(max_examples=30)
@given(weight=tensors)
def test_least_squares_is_never_worse_than_the_maximum(name: str, weight: torch.Tensor) -> None:
    number = formats.load(name)
    most, least = (
        (weights.rounded(weight, number, rule) - weight).square().flatten(1).sum(1) for rule in ("max", "mse")
    )
    assert bool((least <= most * (1 + 1e-6) + 1e-30).all())


@pytest.mark.parametrize("name", ["int2", "int4", "int6", "fp4_e2m1", "fp8_e4m3"])
def test_the_quick_search_is_as_good_as_trying_every_fraction(name: str) -> None:
    torch.manual_seed(0)
    number = formats.load(name)
    rows = torch.distributions.StudentT(4.0).sample((24, 300)) if name != "int6" else torch.randn(24, 300)
    scale = weights.channel_scale(rows, number, "max")
    zero = torch.zeros(24, 1)
    tried = [number.fake(rows, (scale * f)[:, None], zero) - rows for f in number.fractions()]
    least = torch.stack(tried).square().sum(2).amin(0)
    found = (weights.rounded(rows, number, "mse") - rows).square().sum(1)
    assert bool((found >= least * (1 - 1e-5)).all())
    # The error of three mantissa bits goes up and down with every hundredth of the range, by little.
    assert float((found / least).mean()) < (1.04 if name == "fp8_e4m3" else 1.005)


def test_gain_keeps_what_least_squares_takes_off_every_row() -> None:
    """Clipping makes rows shorter, a little each: behind many layers that is most of the error."""
    torch.manual_seed(0)
    number, rows = formats.load("int4"), torch.randn(64, 300)
    length = {
        rule: float(((weights.rounded(rows, number, rule) * rows).sum(1) / rows.square().sum(1)).mean())
        for rule in ("mse", "gain")
    }
    noise = {rule: float((weights.rounded(rows, number, rule) - rows).square().sum()) for rule in ("max", "gain")}
    assert abs(1 - length["gain"]) < 0.4 * abs(1 - length["mse"])
    assert noise["gain"] < noise["max"]


@pytest.mark.parametrize("granularity", ["tensor", "channel", "block:2", "block:4"])
def test_what_shares_a_scale_shares_nothing_else(granularity: str) -> None:
    """The scale is that of its own part alone, whatever the others hold."""
    torch.manual_seed(0)
    weight = torch.randn(5, 4, 3, 2)
    found = weights.scales(weight, INT8, "max", granularity)
    parts = {"tensor": weight.abs().amax(), "channel": weight.abs().amax((1, 2, 3))}
    size = weights.block_size(granularity) or 1
    peak = parts.get(granularity, weight.abs().reshape(5, -1, size, 3, 2).amax(2))
    assert torch.equal(found, peak / 127)
    spread = weights.spread(found, weight, granularity).expand_as(weight)
    assert bool((weight.abs() <= spread * 127 * (1 + 1e-6)).all())


def test_finer_scales_err_less() -> None:
    torch.manual_seed(0)
    weight = torch.randn(16, 32, 3, 3) * torch.rand(16, 32, 1, 1).exp() * torch.rand(16, 1, 1, 1).mul(3).exp()
    number = formats.load("int4")
    every = ("tensor", "channel", "block:16", "block:4")
    errors = [float((weights.rounded(weight, number, "max", each) - weight).square().sum()) for each in every]
    assert errors == sorted(errors, reverse=True)


@every_rule
@given(weight=tensors, index=st.integers(0, 5), factor=st.sampled_from([2.0**-10, 0.5, 4.0, 2.0**12]))
def test_channels_do_not_see_each_other(rule: str, weight: torch.Tensor, index: int, factor: float) -> None:
    index %= len(weight)
    other = weight.clone()
    other[index] *= factor
    one, two = weights.rounded(weight, INT8, rule), weights.rounded(other, INT8, rule)
    rest = [i for i in range(len(weight)) if i != index]
    assert torch.equal(one[rest], two[rest])


@given(weight=tensors)
def test_rounding_by_the_maximum_is_idempotent_and_close(weight: torch.Tensor) -> None:
    once = weights.rounded(weight, INT8, "max")
    step = weights.channel_scale(weight, INT8, "max")[:, None, None]
    assert bool(((once - weight).abs() <= step * 0.5 * (1 + 1e-5)).all())
    assert torch.allclose(weights.rounded(once, INT8, "max"), once, rtol=1e-6, atol=0)


def one_conv(weight: np.ndarray, bias: np.ndarray) -> Model:
    net = Net()
    return net.model(net.conv("x", len(bias), weight=weight, offset=bias))


def applied(model: Model, x: tuple[float, float], y: tuple[float, float], rule: str = "max") -> Model:
    ranges = {"x": Range(*x, "minmax"), "conv0": Range(*y, "minmax")}
    plan = Plan(model.digest, TARGET.name, (), {"conv0": LayerPlan("uint8", "int8", rule)}, ranges)
    return apply(model, plan, TARGET)


def constants(model: Model) -> dict[str, torch.Tensor]:
    held = {graphs.value(node): graphs.constant(node) for node in model.graph.graph.nodes}
    return {name: tensor for name, tensor in held.items() if tensor is not None}


def in_engine(model: Model, x: torch.Tensor) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        to_onnx(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    result: np.ndarray = session.run(None, {"x": x.numpy()})[0]
    return result


@every_rule
@pytest.mark.parametrize("dead", [0.0, 1e-40, 1e-30])
def test_a_channel_of_zeros_gives_its_bias(rule: str, dead: float) -> None:
    """To half a step of the output, however wide the input's range: its own scale says nothing of the bias."""
    weight = Net(seed=3).normal(4, 3, 1, 1)
    weight[1], weight[3] = dead, -dead
    bias = np.float32([0.5, 0.737, -0.2, -0.913])
    model = one_conv(weight, bias)
    made = applied(model, (-1000.0, 1000.0), (-1.0, 1.0), rule)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    step = 2 / 255
    for found in (made({"x": x})["conv0"].numpy(), in_engine(made, x)):
        assert np.abs(found[:, [1, 3]] - bias[[1, 3], None, None]).max() <= step / 2 * 1.001


def test_a_channel_of_zeros_without_a_bias_is_zero() -> None:
    weight = Net(seed=3).normal(2, 3, 1, 1)
    weight[1] = 0
    made = applied(one_conv(weight, np.float32([0.5, 0.0])), (-3.0, 3.0), (-4.0, 4.0))
    x = batches(made, 1)[0]["x"]
    assert float(made({"x": x})["conv0"][:, 1].abs().max()) == 0
    assert all(bool(torch.isfinite(t.float()).all()) for t in constants(made).values())
    assert bool((constants(made)["conv0.weight_scale"] > 0).all())


@pytest.mark.parametrize("bias", [1e-3, 10.0, 1e6, 3e12, -3e12])
def test_a_bias_always_fits_the_accumulator(bias: float) -> None:
    weight = np.full((1, 3, 1, 1), 1e-6, np.float32)
    made = applied(one_conv(weight, np.float32([bias])), (-1.0, 1.0), (min(bias, 0), max(bias, 0)))
    codes, scale = constants(made)["conv0.bias_quantized"], constants(made)["conv0.bias_scale"]
    assert abs(int(codes)) <= 2**30
    assert float(codes * scale) == pytest.approx(bias, rel=1e-5, abs=1e-8)
    x = torch.zeros(1, 3, 8, 8)
    assert float(made({"x": x})["conv0"].mean()) == pytest.approx(bias, rel=0.01)
    assert float(in_engine(made, x).mean()) == pytest.approx(bias, rel=0.01)


def test_weights_are_stored_as_codes_of_one_byte(tmp_path: Path) -> None:
    net = Net(seed=1)
    made = applied(net.model(net.conv("x", 16, 3, group=1)), (-3.0, 3.0), (-9.0, 9.0))
    held = constants(made)
    assert held["conv0.weight_quantized"].dtype == torch.int8
    assert held["conv0.bias_quantized"].dtype == torch.int32
    assert held["conv0.weight_scale"].shape == held["conv0.bias_scale"].shape == (16,)
    wanted = torch.tensor((3 + 3) / 255) * held["conv0.weight_scale"]
    assert torch.allclose(held["conv0.bias_scale"], wanted)
    assert int(held["conv0.weight_zero_point"].abs().max()) == 0
    names = {tensor.name: tensor.data_type for tensor in to_onnx(made).graph.initializer}
    assert names["conv0.weight_quantized"] == 3
    assert "conv0.weight" not in names


@pytest.mark.parametrize("rank", [2, 3])
def test_a_linear_layer_of_any_rank(rank: int) -> None:
    shape = ("N", 6) if rank == 2 else ("N", 5, 6)
    net = Net(*shape, seed=2)
    weight, bias = net.weight(net.normal(6, 4)), net.weight(net.normal(4))
    name = net.op("Gemm", "x", weight, bias) if rank == 2 else net.op("Add", net.op("MatMul", "x", weight), bias)
    model = net.model(name)
    layer = next(str(n.target) for n in model.graph.graph.nodes if n.op == "call_module")
    plan = Plan(model.digest, TARGET.name, (), {layer: LayerPlan("uint8", "int8")}, {"x": Range(-4, 4, "minmax")})
    made = apply(model, plan, TARGET)
    (samples,) = batches(model, 1)
    found, wanted = made(samples)[name], model(samples)[name]
    assert float((found - wanted).abs().max()) < 0.03 * float(wanted.abs().max())
    assert np.allclose(in_engine(made, samples["x"]), found.numpy(), atol=1e-4)


@pytest.mark.parametrize("kept", [(), ("conv0",)], ids=["all", "but one"])
def test_biases_behind_say_the_same(kept: tuple[str, ...]) -> None:
    """Only where a network asks for sizes, and only behind what runs in integers."""
    net = Net("N", 3, "H", "W")
    first = net.op("Relu", net.conv("x", 4, 3))
    net.head(net.op("Add", first, net.conv(net.conv(first, 4, 3, bias=False), 4, group=4)))
    size = net.op("Shape", first)
    target = targets.load("openvino-cpu")
    model = net.model("scores", size)
    inside, _ = quantized(model, replace(target, biases="inside"), keep=kept)
    behind, _ = quantized(model, target, keep=kept)
    for samples in batches(model):
        torch.testing.assert_close(behind(samples)["scores"], inside(samples)["scores"])
    assert kinds(behind).count("Add") == kinds(inside).count("Add") + 2 - len(kept)
    convs = (node for node in graphs.computes(behind.graph) if graphs.operator(node) == "Conv")
    assert not any(argument for node in convs for argument in node.args[2:])
    values = [graphs.value(node) for node in behind.graph.graph.nodes]
    assert len(set(values)) == len(values)
    plain = net.model("scores")
    assert kinds(quantized(plain, target, keep=kept)[0]) == kinds(
        quantized(plain, replace(target, biases="inside"), keep=kept)[0]
    )


def test_a_transposed_convolution_is_quantized_along_its_outputs() -> None:
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(3, 5, 4, 2, 1)
    layer.weight.data[:, 2] *= 100  # a scale per input channel would ruin the other outputs
    rows = weights.by_output(layer, layer.weight.detach())
    rounded = weights.by_output(layer, weights.rounded(rows, INT8, "max"))
    steps = layer.weight.detach().abs().amax((0, 2, 3)) / 127
    assert rounded.shape == layer.weight.shape
    assert ((rounded - layer.weight.detach()).abs().amax((0, 2, 3)) <= steps / 2 * 1.0001).all()
