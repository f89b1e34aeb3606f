"""A transposed convolution as a sub-pixel one: the same numbers in double, the same codes in ONNX Runtime."""

from itertools import product
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import fx, nn

from convkit.compress import graph as graphs
from convkit.compress import parts, simulate
from convkit.compress import target as targets
from convkit.compress.apply import prepare
from convkit.compress.model import Model
from convkit.export.onnx import to_onnx
from tests import here
from tests.compress.network import Net, batches, fused, kinds, quantized

TARGET = targets.load("onnxruntime-cpu")
METHODS = ("fold_batch_norm", "sub_pixel")
two = st.tuples


def rewritten(layer: nn.Module) -> fx.GraphModule:
    """What the method makes of a network of `layer` alone."""
    graph = fx.Graph()
    made = graph.call_module("layer", (graph.placeholder("x"),))
    made.meta["value"] = "y"
    graph.output(made)
    return parts.load("compress/methods", "sub_pixel").change(fx.GraphModule({"layer": layer}, graph))


def is_rewritten(graph: fx.GraphModule) -> bool:
    return isinstance(graph.get_submodule("layer"), nn.Conv2d)


@torch.no_grad()
def largest_error(layer: nn.ConvTranspose2d, graph: fx.GraphModule, height: int, width: int) -> float:
    x = torch.randn(2, layer.in_channels, height, width, dtype=torch.float64)
    found, wanted = graph(x), layer(x)
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max())


@settings(max_examples=150, deadline=None)
@given(
    kernel=two(st.integers(1, 6), st.integers(1, 6)),
    stride=two(st.integers(1, 4), st.integers(1, 4)),
    padding=two(st.integers(0, 5), st.integers(0, 5)),
    extra=two(st.integers(0, 3), st.integers(0, 3)),
    size=two(st.integers(1, 6), st.integers(1, 6)),
    channels=two(st.integers(1, 4), st.integers(1, 4)),
    bias=st.booleans(),
)
def test_it_computes_the_same(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    extra: tuple[int, int],
    size: tuple[int, int],
    channels: tuple[int, int],
    bias: bool,
) -> None:
    extra = (extra[0] % stride[0], extra[1] % stride[1])
    made = [(n - 1) * s + k - 2 * p + e for n, s, k, p, e in zip(size, stride, kernel, padding, extra, strict=True)]
    assume(min(made) > 0)
    layer = nn.ConvTranspose2d(*channels, kernel, stride, padding, extra, bias=bias).double()
    assert largest_error(layer, rewritten(layer), *size) <= 1e-12


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "extra", "slices"),
    [
        (2, 2, 0, 0, 0),
        (4, 2, 1, 0, 1),
        (4, 2, 3, 0, 1),
        (4, 2, 2, 0, 0),
        (3, 2, 1, 1, 0),
        (8, 4, 2, 0, 1),
        (6, 3, 0, 2, 1),
    ],
)
def test_what_networks_upsample_with_is_rewritten(
    kernel: int, stride: int, padding: int, extra: int, slices: int
) -> None:
    """U-Net, DCGAN, waifu2x, … and CycleGAN's, which has no more to slice off than the others."""
    layer = nn.ConvTranspose2d(3, 2, kernel, stride, padding, extra).double()
    graph = rewritten(layer)
    assert is_rewritten(graph)
    assert [graphs.operator(node) for node in graphs.computes(graph)].count("Slice") == slices
    for height, width in product((3, 5), (4, 7)):
        assert largest_error(layer, graph, height, width) <= 1e-12


@pytest.mark.parametrize(
    "layer",
    [
        nn.ConvTranspose1d(4, 4, 2, 2),
        nn.ConvTranspose3d(4, 4, 2, 2),
        nn.ConvTranspose2d(4, 4, 2, 2, groups=2),
        nn.ConvTranspose2d(4, 4, 2, 2, dilation=2),
        nn.ConvTranspose2d(4, 4, 3, 1, 1),
        nn.ConvTranspose2d(4, 4, 1, 2),
        nn.ConvTranspose2d(4, 4, 5, 4),
    ],
    ids=["1-D", "3-D", "grouped", "dilated", "no stride", "mostly gaps", "costly"],
)
def test_what_has_no_such_form_is_left_alone(layer: nn.Module) -> None:
    assert rewritten(layer).get_submodule("layer") is layer


def decoder(*, size: tuple[int | str, int | str] = (8, 9), activation: str = "Relu") -> Model:
    """Conv, a transposed conv with batch norm and activation, a conv: half a U-Net."""
    net = Net("N", 3, *size, seed=3)
    features = net.op("Relu", net.conv("x", 8, 3))
    weight = net.weight(net.normal(8, 6, 4, 4, gain=0.2))
    up = net.op("ConvTranspose", features, weight, strides=[2, 2], pads=[1, 1, 1, 1], kernel_shape=[4, 4])
    net._channels[up] = 6
    return net.model(net.conv(net.op(activation, net.norm(up), name="up"), 4, 3), "up")


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu", "Softplus"])
@pytest.mark.parametrize("size", [(8, 9), ("H", "W")])
def test_a_network_computes_the_same_at_any_size(size: tuple[int | str, int | str], activation: str) -> None:
    model = decoder(size=size, activation=activation)
    changed = prepare(model, METHODS)
    assert "ConvTranspose" not in kinds(changed)
    behind = kinds(changed)[kinds(changed).index("Transpose") - 1]
    assert behind == ("Conv" if activation == "Softplus" else activation)
    for height, width in {(8, 9), (8, 9) if size == (8, 9) else (5, 11)}:
        x = {"x": torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(1))}
        found, wanted = changed(x), model(x)
        assert list(found) == list(wanted)
        assert all(torch.allclose(found[name], wanted[name], rtol=1e-5, atol=1e-5) for name in wanted)


def test_onnxruntime_runs_it_in_integers_and_gives_the_codes_that_are_simulated(tmp_path: Path) -> None:
    """Nothing but kernels and moves of codes is left between the first and the last convolution."""
    model, plan = quantized(decoder(), TARGET, methods=METHODS)
    assert sum(layer.weight is not None for layer in plan.layers.values()) == 3
    run = fused(model, tmp_path)
    assert run["QLinearConv"] == 3
    assert not {"Conv", "ConvTranspose", "DepthToSpace", "Relu"} & run.keys()
    assert run["QuantizeLinear"] == 1
    (samples,) = batches(model, 1)
    session = onnxruntime.InferenceSession(
        to_onnx(model).SerializeToString(), here.exact(), providers=["CPUExecutionProvider"]
    )
    found = session.run(None, {name: tensor.numpy() for name, tensor in samples.items()})
    wanted = simulate.integers(model)(samples)
    assert all(np.array_equal(one, other) for one, other in zip(found, wanted.values(), strict=True))


def test_the_target_s_placements_hold_it() -> None:
    assert any("sub_pixel" in placement.get("methods", ()) for placement in TARGET.placements)
