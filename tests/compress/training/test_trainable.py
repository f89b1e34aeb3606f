"""A quantized network that can be trained computes what it computes, and what is learnt is what it computes then."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import onnxruntime
import pytest
import torch

from convkit.compress import behind
from convkit.compress import graph as graphs
from convkit.compress import target as targets
from convkit.compress.apply import apply_prepared, prepare
from convkit.compress.format import load
from convkit.compress.model import Model
from convkit.compress.plan import Plan
from convkit.compress.training.choices import Choices
from convkit.compress.training.rounded import Norm, Scale, bounds, straight
from convkit.compress.training.trainable import Network
from convkit.export.onnx import to_onnx
from tests.compress.network import EXACT, Net, batches, quantized, residual
from tests.compress.test_learned_round import sequence, unbiased, upscaler, volume


def pooled() -> Net:
    """An operator on codes alone, and a residual sum."""
    net = Net()
    stem = net.op("Relu", net.conv("x", 8, 3))
    smaller = net.op("MaxPool", stem, kernel_shape=[2, 2], strides=[2, 2])
    net.head(net.op("Add", smaller, net.conv(smaller, 8, 3), name="sum"))
    return net


def padded() -> Net:
    """A mirrored border, which is set on codes, before a convolution."""
    net = Net()
    stem = net.op("Relu", net.conv("x", 8, 3))
    wide = net.op("Pad", stem, net.weight(np.int64([0, 0, 1, 1, 0, 0, 1, 1])), mode="reflect")
    net.head(net.op("Relu", net.conv(wide, 8, 3)))
    return net


def sized() -> Net:
    """A size is asked of it, for which OpenVINO's biases stand behind their convolutions."""
    net = Net("N", 3, "H", "W")
    stem = net.op("Relu", net.conv("x", 8, 3))
    net.head(net.op("Relu", net.conv(stem, 8, 3)))
    net.op("Shape", stem, name="size")
    return net


NETS: Mapping[str, Callable[[], Net]] = {
    "padded": padded,
    "residual": residual,
    "pooled": pooled,
    "sequence": sequence,
    "volume": volume,
    "upscaler": upscaler,
    "unbiased": unbiased,
}
CASES = [
    *((name, "onnxruntime-cpu", "int8", "channel") for name in NETS if name != "upscaler"),
    ("upscaler", "openvino-cpu", "int8", "channel"),
    ("residual", "openvino-cpu", "int4", "channel"),
    ("residual", "onnxruntime-cpu", "int5", "tensor"),
    ("residual", "onnxruntime-cpu", "int4", "block:4"),
    ("residual", "trt-rtx", "int8", "channel"),
    ("residual", "trt-rtx", "fp8_e4m3", "channel"),
    ("residual", "onnxruntime-cpu", "e3m2", "channel"),
    ("residual", "trt-rtx", "bf16", "channel"),
]


@cache
def plan_of(name: str, target: str) -> tuple[Model, Plan]:
    model = NETS[name]().model("scores")
    return model, quantized(model, targets.load(target))[1]


def network(name: str, target: str, weight: str, granularity: str, **how: bool) -> tuple[Network, Model]:
    """One that can be trained, and the same again as it was quantized."""
    model, plan = plan_of(name, target)
    pair = {} if load(weight).ranged and target != "trt-rtx" else {"activation": weight}
    layers = {
        key: replace(layer, weight=weight, weight_range="mse", **_suits(model, key, granularity), **pair)
        if layer.weight
        else layer
        for key, layer in plan.layers.items()
        if layer.weight or not pair or weight == "int8"
    }
    made = replace(plan, layers=layers)
    prepared = prepare(model, EXACT)
    both = [apply_prepared(prepared, made, targets.load(target)) for _ in range(2)]
    return Network(both[0], prepared, **how), both[1]


def _suits(model: Model, layer: str, granularity: str) -> dict[str, str]:
    """Blocks that divide the layer's input channels, which depthwise layers and the image do not have."""
    if not granularity.startswith("block"):
        return {"granularity": granularity}
    node = next(node for node in prepare(model, EXACT).graph.graph.nodes if graphs.key(node) == layer)
    weight = getattr(graphs.module(node), "weight", None)
    assert isinstance(weight, torch.Tensor)
    return {"granularity": granularity if weight.shape[1] % 4 == 0 else "channel"}


def inputs(model: Model) -> tuple[torch.Tensor, ...]:
    (batch,) = batches(model, 1, 16, seed=3)
    return tuple(batch.values())


def off(made: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((made - wanted).abs().max() / wanted.abs().max())


def moved(found: Network | Choices, chance: torch.Generator) -> None:
    """Everything that is learnt, a little."""
    with torch.no_grad():
        for parameter in found.graph.parameters():
            own = parameter.abs().mean() if parameter.numel() and bool(parameter.any()) else torch.ones(())
            parameter.add_(0.05 * own * torch.randn(parameter.shape, generator=chance))


@pytest.mark.parametrize(("name", "target", "weight", "granularity"), CASES)
def test_it_computes_what_it_did_and_then_what_was_learnt(
    name: str, target: str, weight: str, granularity: str
) -> None:
    found, before = network(name, target, weight, granularity)
    given = inputs(before)
    found.graph.eval()
    with torch.no_grad():
        assert off(found.graph(*given)[0], before.graph(*given)[0]) <= 1e-5
        moved(found, torch.Generator().manual_seed(0))
        learnt = found.graph(*given)[0]
        assert off(learnt, before.graph(*given)[0]) > 1e-2
        settled = found.settle().graph(*given)[0]
    assert float((settled - learnt).square().mean() / learnt.var()) <= 5e-5  # a code here and there is the next


@pytest.mark.parametrize(("weight", "granularity"), [("int8", "channel"), ("int4", "channel"), ("int4", "block:4")])
def test_norms_stand_behind_convolutions_and_fold_into_scales(weight: str, granularity: str) -> None:
    found, before = network("residual", "onnxruntime-cpu", weight, granularity, norms=True)
    given = inputs(before)
    found.graph.eval()
    found.begin_norms([given])
    with torch.no_grad():
        assert off(found.graph(*given)[0], before.graph(*given)[0]) <= 1e-2  # a code here and there is the next
        found.train()
        for _ in range(3):
            found.graph(*inputs(before))  # statistics move
        found.graph.eval()
        moved(found, torch.Generator().manual_seed(1))
        learnt = found.graph(*given)[0]
        settled = found.settle().graph(*given)[0]
    assert float((settled - learnt).square().mean() / learnt.var()) <= 1e-4


def test_a_bias_behind_a_convolution_is_learnt() -> None:
    model, target = sized().model("scores", "size"), targets.load("openvino-cpu")
    made, _ = quantized(model, target)
    found, given = Network(made, prepare(model, EXACT)), torch.randn(4, 3, 8, 8)
    biases = {layer.key: layer.behind for layer in found.layers if layer.behind is not None}
    assert [tuple(bias.shape) for bias in biases.values()] == [(8, 1, 1)] * 2
    learnt, _ = found.parameters()
    assert {id(bias) for bias in biases.values()} <= {id(parameter) for parameter in learnt}
    found.graph(given)[0].square().sum().backward()
    assert all(bias.grad is not None and bool(bias.grad.any()) for bias in biases.values())
    moved(found, torch.Generator().manual_seed(4))
    with torch.no_grad():
        wanted = found.graph(given)[0]
        settled = found.settle().graph(given)[0]
    for layer in found.layers:
        if layer.behind is not None:
            assert torch.equal(behind.bias(layer.node), layer.behind)
    assert float((settled - wanted).square().mean() / wanted.var()) <= 5e-5


def test_a_norm_of_one_number_a_channel_keeps_to_its_statistics() -> None:
    """Such as that behind a 1x1 image, of a part of a batch that holds one sample: one number has no variance."""
    chance = torch.Generator().manual_seed(0)
    seen, one = torch.randn(16, 4, 1, 1, generator=chance), torch.randn(1, 4, 1, 1, generator=chance)
    norm = Norm(torch.randn(4, generator=chance))
    norm(seen)
    norm.begin()
    before = [norm.get_buffer(name).clone() for name in ("mean", "variance")]
    norm.train()
    made = norm(one)
    made.sum().backward()
    assert all(torch.equal(norm.get_buffer(name), own) for name, own in zip(("mean", "variance"), before, strict=True))
    norm.eval()
    torch.testing.assert_close(made, norm(one))
    assert bool(made.isfinite().all())
    norm.train()
    norm(seen[:2])
    assert not torch.equal(norm.get_buffer("mean"), before[0])


def test_the_file_runs_as_it_was_learnt() -> None:
    """ONNX Runtime on the exported file, after training had its way with every scale and code."""
    found, _ = network("pooled", "onnxruntime-cpu", "int8", "channel")
    moved(found, torch.Generator().manual_seed(2))
    model = found.settle()
    given = inputs(model)
    session = onnxruntime.InferenceSession(to_onnx(model).SerializeToString(), providers=["CPUExecutionProvider"])
    (made,) = session.run(None, {"x": given[0].numpy()})
    wanted = model.graph(*given)[0].detach().numpy()
    assert np.square(made - wanted).mean() / wanted.var() <= 1e-3


def test_ranges_follow_batches() -> None:
    found, before = network("residual", "onnxruntime-cpu", "int8", "channel", follow=True)
    given = inputs(before)
    assert not found.parameters()[1] or all(scale.numel() > 1 for scale in found.parameters()[1])
    with torch.no_grad():
        for _ in range(400):
            found.graph(given[0] * 3)
    held = {graphs.value(node): graphs.constant(node) for node in found.settle().graph.graph.nodes}
    known = {graphs.value(node): graphs.constant(node) for node in before.graph.graph.nodes}
    now, then = held["x_scale"], known["x_scale"]
    assert now is not None
    assert then is not None
    ends = given[0].amax() * 3, -given[0].amin() * 3
    zero = known["x_zero_point"]
    assert zero is not None
    assert float(now) == pytest.approx(max(float(ends[0]) / (255 - int(zero)), float(ends[1]) / int(zero)), rel=0.05)


def test_the_gradient_of_a_scale_is_that_of_the_paper() -> None:
    """Esser et al., equation 3: round(x/s) - x/s within the codes, their end beyond; in the log, times s ln 2."""
    number, scale = load("int4"), Scale(torch.tensor(0.3))
    x = torch.tensor([-9.0, -0.7, 0.1, 0.44, 1.0, 5.0])
    zero = torch.zeros(())
    (straight(number, x, scale(), zero) * scale()).sum().backward()
    v = x / 0.3
    wanted = torch.where(v <= -8, -8.0, torch.where(v >= 7, 7.0, torch.round(v) - v)).sum() * 0.3 * np.log(2)
    assert scale.log.grad is not None
    assert float(scale.log.grad) == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.parametrize(("weight", "zero"), [("int4", 0.0), ("uint8", 37.0), ("fp8_e4m3", 0.0), ("e3m2", 0.0)])
def test_gradients_are_those_of_clipping(weight: str, zero: float) -> None:
    """Beside torch's own through division, clipping, and the rounding taken for a constant."""
    number, offset = load(weight), torch.tensor(zero)
    chance = torch.Generator().manual_seed(0)
    x, scale = torch.randn(64, 5, generator=chance) * 20, torch.rand(5, generator=chance) + 0.1
    low, high = (end - zero for end in bounds(number))
    made = []
    for own in (True, False):
        inputs = [tensor.clone().requires_grad_() for tensor in (x, scale)]
        inside = (inputs[0] / inputs[1]).clamp(low, high)
        there = inside + (number.fake(inside.detach(), torch.ones(()), offset) - inside).detach()
        codes = straight(number, *inputs, offset) if own else there
        (codes * inputs[1] * torch.linspace(-1, 1, 5)).sum().backward()
        made.append([codes.detach(), *(tensor.grad for tensor in inputs)])
    for one, other in zip(*made, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
