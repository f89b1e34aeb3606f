"""Balanced channels: each activation's channels reach equally far, what cannot be rescaled is not, INT8 loses less."""

import numpy as np
import pytest
import torch
from torch import Tensor

from convkit.compress import graph as graphs
from convkit.compress import target as targets
from convkit.compress.apply import apply, prepare
from convkit.compress.errors import ConvkitError
from convkit.compress.lockstep import Lockstep
from convkit.compress.model import Model
from convkit.compress.plan import Plan
from tests.compress.network import EXACT, Net, batches, quantized
from tests.compress.test_methods import TOLERANCE, inputs, largest_difference

METHODS = ("balance_channels",)
UNEVEN = np.float32([0.3, 0.5, 0.7, 1, 1.5, 2])
TARGET = targets.load("onnxruntime-cpu")


def uneven(net: Net, source: str, count: int = 6, **changes: object) -> str:
    """A convolution whose channels reach differently far, within what is evened out."""
    channels, factor = net._channels[source], np.resize(UNEVEN, count)
    kernel = int(changes.pop("kernel", 3))
    weight = net.normal(count, channels // int(changes.get("group", 1)), kernel, kernel, gain=0.3)
    return net.conv(source, count, kernel, weight=weight * factor[:, None, None, None], bias=False, **changes)


def balanced(model: Model) -> tuple[Model, dict[str, float]]:
    """The balanced network, shown to compute the same, and by tensor how many times further its furthest channel
    reaches than its nearest, where a convolution reads it."""
    samples = batches(model)
    changed = prepare(model, METHODS, samples)
    assert largest_difference(changed, model, inputs(model, (2, *model.inputs[0].sample[1:]))) <= TOLERANCE
    return changed, {graphs.value(node): float(p.max() / p.min()) for node, p in peaks(changed, samples).items()}


@torch.no_grad()
def peaks(model: Model, samples: list[dict[str, Tensor]]) -> dict[object, Tensor]:
    """The largest magnitude of each channel of what convolutions read."""
    run, found = Lockstep(model.graph, (model.inputs[0].name,), samples), {}
    for node in model.graph.graph.nodes:
        values = run.advance(node)
        if any(graphs.operator(user) in ("Conv", "ConvTranspose") and user.args[0] is node for user in node.users):
            found[node] = torch.cat(values).abs().amax((0, 2, 3))
    return found


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu", ""])
def test_channels_between_two_convolutions_reach_equally_far(activation: str) -> None:
    net = Net(seed=4)
    first = uneven(net, "x")
    between = net.op(activation, first) if activation else first
    model = net.model(net.conv(between, 4))
    before = peaks(model, batches(model))
    assert max(float(peak.max() / peak.min()) for peak in before.values()) > 4
    _, spread = balanced(model)
    assert spread.pop("x") > 1
    assert list(spread.values()) == [pytest.approx(1, abs=1e-4)]


def test_the_furthest_channel_stays_as_it_is() -> None:
    net = Net(seed=4)
    model = net.model(net.conv(net.op("Relu", uneven(net, "x")), 4))
    changed, _ = balanced(model)
    (_, before), (_, after) = (list(peaks(each, batches(model)).values()) for each in (model, changed))
    assert float(after.max()) == pytest.approx(float(before.max()), rel=1e-5)
    assert bool((after >= before * (1 - 1e-5)).all())


@pytest.mark.parametrize("shape", ["depthwise", "grouped", "transposed", "pooled", "added", "joined", "read twice"])
def test_channels_are_balanced_across(shape: str) -> None:
    net = Net(seed=4)
    one = net.op("Relu", uneven(net, "x"))
    if shape == "depthwise":
        end = net.conv(net.op("Relu", uneven(net, one, group=6)), 4)
    elif shape == "grouped":
        end = net.conv(net.op("Relu", uneven(net, one, 12, group=3)), 4, group=2)
    elif shape == "transposed":
        weight = net.weight(net.normal(6, 2, 2, 2) * UNEVEN[:, None, None, None])
        up = net.op("Relu", net.op("ConvTranspose", one, weight, group=2, strides=[2, 2], kernel_shape=[2, 2]))
        end = net.conv(up, 4, channels=4)
    elif shape == "pooled":
        end = net.conv(net.op("MaxPool", one, kernel_shape=[2, 2], strides=[2, 2]), 4)
    elif shape == "added":
        end = net.conv(net.op("Add", one, net.op("Relu", uneven(net, one)), name="sum"), 4)
    elif shape == "joined":
        end = net.conv(net.op("Concat", one, net.op("Relu", uneven(net, one)), axis=1), 4, channels=12)
    else:
        end = net.op("Add", net.conv(one, 4), net.conv(one, 4))
    _, spread = balanced(net.model(end))
    del spread["x"]
    assert spread
    # What is added shares its channels' scales with what it is added to: none of the two is even alone.
    assert all(ratio < (100 if shape == "added" else 1.001) for ratio in spread.values())


@pytest.mark.parametrize("reader", ["Sigmoid", "Clip", "output", "Mul"])
def test_channels_that_something_else_reads_keep_their_scale(reader: str) -> None:
    net = Net(seed=4)
    one = uneven(net, "x") if reader == "Clip" else net.op("Relu", uneven(net, "x"))
    if reader == "Clip":
        model = net.model(net.conv(net.relu6(one), 4))
    elif reader == "output":
        model = net.model(net.conv(one, 4), one)
    else:
        other = net.op(reader, one, *([one] if reader == "Mul" else []))
        model = net.model(net.conv(one, 4), net.conv(other, 4, channels=6))
    changed, _ = balanced(model)
    kept, held = dict(changed.graph.named_parameters()), dict(model.graph.named_parameters())
    assert all(torch.equal(parameter, held[name]) for name, parameter in kept.items())


def test_channels_joined_with_some_that_are_fixed_reach_as_far_as_these() -> None:
    net = Net(seed=4)
    one, other = net.op("Relu", uneven(net, "x")), net.op("Sigmoid", net.conv("x", 2, 3))
    model = net.model(net.conv(net.op("Concat", one, other, axis=1, name="both"), 4, channels=8))
    changed, _ = balanced(model)
    found = {graphs.value(node): peak for node, peak in peaks(changed, batches(model)).items()}["both"]
    assert found[:6].tolist() == pytest.approx([float(found[6:].max())] * 6, rel=1e-4)


def test_a_channel_that_is_never_seen_survives() -> None:
    net = Net(seed=4)
    weight = net.normal(6, 3, 3, 3, gain=0.3)
    weight[2:4] = 0
    weight[4] *= np.float32(1e-6)
    model = net.model(net.conv(net.op("Relu", net.conv("x", 6, 3, weight=weight, bias=False)), 4))
    changed, _ = balanced(model)
    assert all(bool(parameter.isfinite().all()) for parameter in changed.graph.parameters())


def test_int8_loses_less() -> None:
    """Of channels that what reads them weighs the more, the less far they reach, as trained ones are."""
    net = Net(seed=4)
    weight = net.normal(4, 6, 3, 3, gain=0.3) / UNEVEN[None, :, None, None]
    model = net.model(net.conv(net.op("LeakyRelu", uneven(net, "x"), alpha=0.1), 4, 3, weight=weight))
    sample = batches(model, 1, 16, seed=5)[0]
    wanted = next(iter(model(sample).values()))
    errors = []
    for methods in (EXACT, (*EXACT, *METHODS)):
        made = next(iter(quantized(model, TARGET, methods=methods)[0](sample).values()))
        errors.append(float((made - wanted).square().sum() / wanted.square().sum()))
    assert errors[1] < errors[0] * 0.8


def test_a_plan_that_balances_needs_its_data() -> None:
    net = Net(seed=4)
    model = net.model(net.conv(net.op("Relu", uneven(net, "x")), 4))
    made, plan = quantized(model, TARGET, methods=(*EXACT, *METHODS))
    with pytest.raises(ConvkitError, match="balance_channels needs the calibration data"):
        apply(model, plan, TARGET)
    samples = batches(model)
    again = apply(model, plan, TARGET, [*samples, *batches(model, seed=9)], probe=len(samples))
    assert largest_difference(again, made, samples[0]) == 0
    assert isinstance(plan, Plan)
