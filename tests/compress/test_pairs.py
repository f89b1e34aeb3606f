"""Formats of every kind beside each other: what is planned is what engines compute, and what stays float does."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from convkit.compress import calibration, placement, simulate, weights
from convkit.compress import format as formats
from convkit.compress import graph as graphs
from convkit.compress import target as targets
from convkit.compress.apply import apply, apply_prepared, prepare
from convkit.compress.calibration import Calibration
from convkit.compress.errors import ConvkitError
from convkit.compress.format import Integer
from convkit.compress.model import Model
from convkit.compress.plan import LayerPlan, Plan
from convkit.compress.target import Target
from convkit.export.onnx import to_onnx
from convkit.runtimes.openvino import OpenVinoSession
from convkit.runtimes.session import Options
from tests.compress.network import EXACT, Net, batches, fused, kinds, residual

ORT, OPENVINO = targets.load("onnxruntime-cpu"), targets.load("openvino-cpu")
UINT8 = LayerPlan("uint8", "int8")


@pytest.fixture(scope="module")
def model() -> Model:
    return residual().model("scores")


def fitting(model: Model, name: str, layer: LayerPlan) -> LayerPlan:
    """`layer` by channel where its blocks do not divide the input channels, as those of depthwise convolutions."""
    size = weights.block_size(layer.granularity)
    whole = not size or weights.input_channels(model.graph.get_submodule(name)) % size == 0
    return layer if whole else replace(layer, granularity="channel")


def planned(model: Model, target: Target, layers: Sequence[LayerPlan]) -> tuple[Model, Plan]:
    """`model` with its weighted layers in `layers`, over and over."""
    samples = batches(model)
    prepared = prepare(model, EXACT, samples)
    placed = placement.place(prepared.graph, target)
    turns = itertools.cycle(layers)
    chosen = {name: layer if layer.weight is None else next(turns) for name, layer in placed.items()}
    chosen = {name: fitting(prepared, name, layer) for name, layer in chosen.items()}
    chosen, ranges = calibration.calibrate(prepared, target, chosen, Calibration(samples, samples))
    plan = Plan(model.digest, target.name, EXACT, chosen, ranges)
    return apply_prepared(prepared, plan, target, samples), plan


def decibels(found: torch.Tensor, wanted: torch.Tensor) -> float:
    noise = (found - wanted).square().sum().clamp(min=1e-30)
    return float(10 * torch.log10(wanted.square().sum() / noise))


def in_onnx_runtime(made: Model, x: torch.Tensor, level: str = "ORT_ENABLE_ALL") -> torch.Tensor:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    written = to_onnx(made)
    onnx.checker.check_model(written, full_check=True)
    session = onnxruntime.InferenceSession(written.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def in_openvino(made: Model, x: torch.Tensor, folder: Path, precision: str = "f32") -> torch.Tensor:
    onnx.save(to_onnx(made), folder / "net.onnx")
    session = OpenVinoSession(str(folder / "net.onnx"), replace(Options(), precision=precision))
    found = session.run({"x": x.numpy()})["scores"]
    session.close()
    return torch.from_numpy(found)


def sample(model: Model) -> torch.Tensor:
    return batches(model, 1, 8, seed=5)[0]["x"]


RUNS = {
    "int8 by tensor": ([LayerPlan("uint8", "int8", granularity="tensor")], 25),
    "int8 in blocks": ([LayerPlan("uint8", "int8", granularity="block:4"), UINT8], 25),
    "int4": ([LayerPlan("uint8", "int4")], 10),
    "int6, int2, int8": ([LayerPlan("uint8", "int6"), LayerPlan("uint8", "int2"), UINT8], 0),
    "fewer codes of activations": ([LayerPlan("uint5", "int8"), UINT8], 15),
    "int16": ([LayerPlan("uint16", "int16")], 30),
    "fp8": ([LayerPlan("fp8_e4m3", "fp8_e4m3")], 20),
    "the other fp8": ([LayerPlan("fp8_e5m2", "fp8_e5m2")], 14),
    "fp8 beside int8": ([UINT8, LayerPlan("fp8_e4m3", "fp8_e4m3")], 20),
    "fp4 weights": ([LayerPlan("uint8", "fp4_e2m1")], 10),
    "fp4 weights in blocks": ([LayerPlan("uint8", "fp4_e2m1", granularity="block:4"), UINT8], 10),
    "e3m4 weights alone": ([LayerPlan("fp32", "e3m4")], 30),
    "int4 weights alone": ([LayerPlan("fp32", "int4")], 10),
    "bf16": ([LayerPlan("bf16", "bf16")], 30),
    "fp16 beside int8": ([LayerPlan("fp16", "fp16"), UINT8], 25),
}


@pytest.mark.parametrize("case", RUNS)
def test_onnx_runtime_computes_the_simulation(model: Model, case: str) -> None:
    layers, close = RUNS[case]
    made, _ = planned(model, ORT, layers)
    x = sample(model)
    simulated = simulate.integers(made)({"x": x})["scores"]
    assert decibels(simulated, model({"x": x})["scores"]) > close
    assert decibels(in_onnx_runtime(made, x), simulated) > max(35, close + 10)


@pytest.mark.parametrize("case", RUNS)
def test_openvino_computes_the_simulation(model: Model, case: str, tmp_path: Path) -> None:
    layers, close = RUNS[case]
    layers = [replace(layer, activation="int16") if layer.activation == "uint16" else layer for layer in layers]
    made, _ = planned(model, OPENVINO, layers)
    x = sample(model)
    simulated = made({"x": x})["scores"]
    precision = "bf16" if case == "bf16" else "f32"
    assert decibels(in_openvino(made, x, tmp_path, precision), simulated) > max(25, close)


def test_activations_with_no_type_are_simulated_but_not_written(model: Model) -> None:
    made, _ = planned(model, ORT, [LayerPlan("e3m4", "e3m4")])
    x = sample(model)
    assert decibels(made({"x": x})["scores"], model({"x": x})["scores"]) > 25
    with pytest.raises(ConvkitError, match="tensor 'x_rounded' is in a format that ONNX has no type for; it can be"):
        to_onnx(made)


def stored(made: Model) -> dict[str, torch.Tensor]:
    """Every tensor that the graph makes on a sample, by name."""
    found: dict[str, torch.Tensor] = {}
    calibration.observe(made, [{"x": sample(made)}], lambda node, t, _: found.update({graphs.value(node): t}))
    return found


def test_fewer_codes_are_all_there_is(model: Model) -> None:
    made, _ = planned(model, ORT, [LayerPlan("uint3", "int8")])
    number = formats.load("uint3")
    assert isinstance(number, Integer)
    codes = {n: t for n, t in stored(made).items() if n.endswith("_quantized") and t.dtype == torch.uint8}
    narrow = {name: int(t.max()) for name, t in codes.items() if int(t.max()) <= number.high}
    assert {"x_quantized"} <= narrow.keys()
    assert max(narrow.values()) == number.high


def test_each_layer_reads_its_own_format(model: Model) -> None:
    """And what an 8-bit kernel makes it makes in 8 bits: the other format is rounded from that."""
    made, plan = planned(model, ORT, [UINT8, LayerPlan("fp8_e4m3", "fp8_e4m3")])
    read = {}
    for node in graphs.computes(made.graph):
        layer = plan.layers.get(node.meta.get("layer", ""))
        if layer is not None and layer.weight is not None and isinstance(node.args[0], torch.fx.Node):
            dequantized = node.args[0]
            zero = graphs.constant(dequantized.args[2])
            assert zero is not None
            read[node.meta["layer"]] = (layer.activation, str(zero.dtype))
    assert len(read) == 5
    assert {*read.values()} == {("uint8", "torch.uint8"), ("fp8_e4m3", "torch.float8_e4m3fn")}


def test_what_runs_in_8_bits_still_does_beside_others(model: Model, tmp_path: Path) -> None:
    made, plan = planned(model, ORT, [UINT8, LayerPlan("bf16", "bf16")])
    weighted = [layer for layer in plan.layers.values() if layer.weight == "int8"]
    found = fused(made, tmp_path)
    assert found["QLinearConv"] + found["QGemm"] == len(weighted) == 3


def test_bf16_is_left_to_an_engine_that_has_it(model: Model) -> None:
    """OpenVINO computes all float layers in it when told; ONNX Runtime only rounds."""
    for target, casts in ((OPENVINO, 0), (ORT, 1)):
        made, _ = planned(model, target, [LayerPlan("bf16", "bf16")])
        kinds_ = [n.op_type for n in to_onnx(made).graph.node if n.op_type == "Cast" and n.input[0] == "x"]
        assert len(kinds_) == casts
        assert "Cast" in kinds(made)


def test_weights_alone_leave_activations_alone(model: Model) -> None:
    samples = batches(model)
    prepared = prepare(model, EXACT, samples)
    plan = Plan(
        model.digest, ORT.name, EXACT, {"conv0": LayerPlan("fp32", "int4"), "scores": LayerPlan("fp32", "fp32")}
    )
    made = apply_prepared(prepared, plan, ORT)
    assert kinds(made).count("DequantizeLinear") == 1
    assert "QuantizeLinear" not in kinds(made)
    assert "scores" in [n.target for n in made.graph.graph.nodes if n.op == "call_module"]


def test_formats_of_a_tensor_that_no_kernel_makes_are_rounded_from_itself() -> None:
    """The input, read in bf16 and in float8: neither rounds what the other has rounded."""
    net = Net()
    model = net.model(net.op("Add", net.conv("x", 4, 3), net.conv("x", 4, 3)))
    made, plan = planned(model, ORT, [LayerPlan("bf16", "bf16"), LayerPlan("fp8_e4m3", "fp8_e4m3")])
    assert {layer.activation for layer in plan.layers.values()} == {"bf16", "fp8_e4m3", "uint8"}
    (x,) = [node for node in made.graph.graph.nodes if node.op == "placeholder"]
    assert sorted(graphs.operator(user) for user in x.users) == ["Cast", "QuantizeLinear"]


def test_what_an_engine_computes_wrongly_is_refused(model: Model) -> None:
    """OpenVINO opens files with uint16 and computes other numbers."""
    with pytest.raises(
        ConvkitError, match="openvino-cpu has no uint16, in which the plan has layer 'conv0'; take int16"
    ):
        planned(model, OPENVINO, [LayerPlan("uint16", "int8")])


WRONG = {
    "an unknown granularity": (LayerPlan("uint8", "int8", granularity="row"), "has granularity 'row' for 'conv3'"),
    "an empty block": (LayerPlan("uint8", "int8", granularity="block:0"), "has granularity 'block:0' for 'conv3'"),
    "too few channels": (LayerPlan("uint8", "int8", granularity="block:32"), "for 'conv3', which has 8"),
    "no type": (LayerPlan("uint8", "e3m4", granularity="block:4"), "for 'conv3', whose format has no type in ONNX"),
    "no such float": (LayerPlan("uint8", "e9m9"), "no format is called 'e9m9'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_layer_that_cannot_be_is_told(model: Model, case: str) -> None:
    layer, told = WRONG[case]
    _, plan = planned(model, ORT, [UINT8])
    (name,) = [name for name in plan.layers if name == "conv3"]
    with pytest.raises(ConvkitError) as raised:
        apply(model, replace(plan, layers={**plan.layers, name: layer}), ORT)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_codes_of_every_granularity_are_the_same_in_numpy(model: Model) -> None:
    layer = LayerPlan("fp32", "int4", granularity="block:4")
    prepared = prepare(model, EXACT, batches(model))
    weight = prepared.graph.get_submodule("conv3").weight.detach().numpy()
    made = apply_prepared(prepared, Plan(model.digest, ORT.name, EXACT, {"conv3": layer}), ORT)
    blocks = weight.reshape(len(weight), -1, 4, *weight.shape[2:])
    scale = np.maximum(blocks.max(2) / np.float32(7), -blocks.min(2) / np.float32(8))
    symmetric = np.maximum(np.abs(blocks).max(2) / np.float32(7), scale)[:, :, None]
    wanted = (np.clip(np.rint(blocks / symmetric), -8, 7) * symmetric).reshape(weight.shape)
    assert np.array_equal(stored(made)["conv3.weight"].numpy(), wanted)
