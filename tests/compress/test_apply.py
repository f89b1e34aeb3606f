"""Apply: told everything by the plan, changes nothing else, and what it makes is what ONNX Runtime runs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convkit.compress import format as formats
from convkit.compress import graph as graphs
from convkit.compress import plan as plans
from convkit.compress import simulate
from convkit.compress import target as targets
from convkit.compress.apply import apply
from convkit.compress.errors import ConvkitError
from convkit.compress.method import Samples
from convkit.compress.model import Model
from convkit.compress.plan import LayerPlan, Plan, Range
from convkit.export.onnx import to_onnx
from tests import here
from tests.compress.network import EXACT, Net, batches, fused, kinds, quantized, residual

TARGET = targets.load("onnxruntime-cpu")
CORRECTED = (*EXACT, "bias_correction")


@pytest.fixture(scope="module")
def model() -> Model:
    return residual().model("scores")


@pytest.fixture(scope="module")
def plan(model: Model) -> Plan:
    return quantized(model, TARGET, methods=CORRECTED)[1]


def state(model: Model) -> tuple[str, dict[str, torch.Tensor]]:
    nodes = "".join(f"{n.format_node()} {n.meta.get('value')}\n" for n in model.graph.graph.nodes)
    return nodes, {name: tensor.clone() for name, tensor in model.graph.state_dict().items()}


def signal_to_noise(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(10 * torch.log10(wanted.square().sum() / (found - wanted).square().sum()))


def codes_in_engine(model: Model, samples: Samples) -> dict[str, np.ndarray]:
    """The codes of every quantized activation, as ONNX Runtime computes them in the file that is written of `model`."""
    proto = to_onnx(model)
    names = [node.output[0] for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    proto = onnx.shape_inference.infer_shapes(proto)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), here.exact(), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, {name: x.numpy() for name, x in samples.items()}), strict=True))


def codes(model: Model, samples: Samples) -> dict[str, np.ndarray]:
    """The codes of every quantized activation, as the graph of `model` computes them."""
    found: dict[str, np.ndarray] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            result = super().run_node(n)
            if graphs.value(n).endswith("_quantized") and n.op != "get_attr":
                found[graphs.value(n)] = result.numpy()
            return result

    with torch.no_grad():
        Recorder(model.graph).run(*samples.values())
    return found


def test_the_model_given_stays_as_it_is(model: Model, plan: Plan) -> None:
    nodes, tensors = state(model)
    samples = batches(model)
    before = model(samples[0])["scores"]
    made = apply(model, plan, TARGET, samples)
    after, kept = state(model)
    assert after == nodes
    assert tensors.keys() == kept.keys()
    assert all(torch.equal(kept[name], tensor) for name, tensor in tensors.items())
    assert torch.equal(model(samples[0])["scores"], before)
    assert not simulate.is_quantized(model)
    assert simulate.is_quantized(made)


def test_the_result_is_close(model: Model, plan: Plan) -> None:
    samples = batches(model, 1, 16, seed=9)[0]
    made = apply(model, plan, TARGET, batches(model))
    assert signal_to_noise(made(samples)["scores"], model(samples)["scores"]) > 20


def test_an_empty_plan_is_the_model(model: Model) -> None:
    made = apply(model, Plan(model.digest, TARGET.name), TARGET)
    (samples,) = batches(model, 1)
    assert torch.equal(made(samples)["scores"], model(samples)["scores"])
    assert to_onnx(made).SerializeToString() == to_onnx(model).SerializeToString()


def test_the_same_plan_gives_the_same_bytes(model: Model, plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(plans.dump(plan), encoding="utf-8")
    one, other = (apply(model, p, TARGET, batches(model)) for p in (plan, plans.read(path)))
    assert to_onnx(one).SerializeToString(deterministic=True) == to_onnx(other).SerializeToString(deterministic=True)


def test_planning_again_gives_the_same_plan(model: Model, plan: Plan) -> None:
    again = quantized(residual().model("scores"), TARGET, methods=CORRECTED)[1]
    assert plans.dump(again) == plans.dump(plan)


@pytest.mark.parametrize("layer", ["conv0", "conv6", "sum", "scores"])
def test_a_layer_without_its_line_stays_in_float(model: Model, plan: Plan, layer: str, tmp_path: Path) -> None:
    edited = replace(plan, layers={name: line for name, line in plan.layers.items() if name != layer})
    made = apply(model, edited, TARGET, batches(model))
    (samples,) = batches(model, 1)
    assert signal_to_noise(made(samples)["scores"], model(samples)["scores"]) > 20
    # The convolution's own weight is untouched: it is still a layer, all others are operators on codes.
    layers = [node.target for node in made.graph.graph.nodes if node.op == "call_module"]
    assert layers == ([] if layer == "sum" else [layer])
    onnx.checker.check_model(to_onnx(made), full_check=True)
    fused(made, tmp_path)


WRONG = {
    "another model": ({"model": "00" * 32}, "the plan is for model 000000000000, not "),
    "an unknown layer": (
        {"layers": {"conv99": LayerPlan("uint8", "int8")}},
        "names layer 'conv99', which the model has",
    ),
    "a layer it cannot run": ({"layers": {"clip2": LayerPlan("uint8")}}, "onnxruntime-cpu runs no Clip ('clip2')"),
    "an unknown format": ({"layers": {"conv0": LayerPlan("uint9", "int8")}}, "no format is called 'uint9'"),
    "an unknown weight": ({"layers": {"conv0": LayerPlan("uint8", "int9")}}, "no format is called 'int9'"),
    "a weight with zero point": (
        {"layers": {"conv0": LayerPlan("uint8", "uint8")}},
        "stores the weight of 'conv0' in uint8",
    ),
    "an unknown rule": ({"layers": {"conv0": LayerPlan("uint8", "int8", "best")}}, "weight_range 'best' for 'conv0'"),
    "no range": ({"ranges": {}}, "the plan has no range for tensor 'x'"),
    "an unknown method": ({"methods": ("equalise",)}, "no method is called 'equalise'; did you mean 'equalize'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_plan_that_does_not_fit_is_told(model: Model, plan: Plan, case: str) -> None:
    changes, wanted = WRONG[case]
    with pytest.raises(ConvkitError) as told:
        apply(model, replace(plan, **changes), TARGET, batches(model))
    assert wanted in str(told.value)


def test_a_method_that_needs_samples_says_so(model: Model, plan: Plan) -> None:
    with pytest.raises(ConvkitError, match="bias_correction needs the calibration data it was made with; give --data"):
        apply(model, plan, TARGET)


@pytest.fixture(scope="module")
def clipped() -> tuple[Model, Plan]:
    net = Net()
    model = net.model(net.conv(net.relu6(net.conv("x", 4, 3, offset=np.float32([3, 6, -3, 0]))), 2))
    return model, quantized(model, TARGET)[1]


CLIP_ALONE = replace(
    TARGET, operators={**TARGET.operators, "Conv": replace(TARGET.operators["Conv"], fuses=(), output="any")}
)
"""A target whose convolutions fuse nothing: the Clip stays."""


@settings(max_examples=30)
@given(low=st.just(0.0) | st.floats(-4, 0), high=st.floats(0.5, 9) | st.floats(5.95, 6.05))
def test_an_activation_is_dropped_only_where_no_code_changes(
    clipped: tuple[Model, Plan], low: float, high: float
) -> None:
    model, plan = clipped
    chosen = replace(plan, ranges={**plan.ranges, "clip1": Range(low, high, "minmax")})
    fused, alone = (apply(model, chosen, target) for target in (TARGET, CLIP_ALONE))
    scale, zero = formats.load("uint8").parameters(torch.tensor(low), torch.tensor(high))
    saturates = float(zero) == 0 and round(6 / float(scale)) >= 255
    assert ("Clip" in kinds(fused), "Clip" in kinds(alone)) == (not saturates, True)
    samples = batches(model, 1, 8, seed=3)[0]
    one, other = (codes(each, samples)["clip1_quantized"] for each in (fused, alone))
    assert np.array_equal(one, other)


def test_the_engine_runs_what_was_planned(model: Model, plan: Plan, tmp_path: Path) -> None:
    made = apply(model, plan, TARGET, batches(model))
    written = to_onnx(made)
    onnx.checker.check_model(written, full_check=True)
    found = fused(made, tmp_path)
    weighted = sum(layer.weight is not None for layer in plan.layers.values())
    assert found["QLinearConv"] + found["QGemm"] == weighted == 5
    assert found["QLinearAdd"] == found["QLinearGlobalAveragePool"] == 1
    assert found["QuantizeLinear"] == 1  # of the image
    left_in_float = {"Conv", "Gemm", "Add", "GlobalAveragePool", "Clip", "DequantizeLinear"}
    assert not left_in_float & found.keys()


def test_the_engines_codes_are_the_simulations(model: Model, plan: Plan) -> None:
    made = apply(model, plan, TARGET, batches(model))
    samples = batches(model, 1, 8, seed=5)[0]
    found, wanted = codes(simulate.integers(made), samples), codes_in_engine(made, samples)
    assert found.keys() == wanted.keys()
    assert len(found) == 8
    for name, engines in wanted.items():
        assert np.array_equal(found[name], engines), name


@pytest.mark.parametrize("target", ["onnxruntime-cpu", "openvino-cpu"])
def test_every_target_gives_a_valid_file_that_is_close(model: Model, target: str) -> None:
    made, _ = quantized(model, targets.load(target), methods=CORRECTED)
    onnx.checker.check_model(to_onnx(made), full_check=True)
    samples = batches(model, 1, 8)[0]
    assert signal_to_noise(made(samples)["scores"], model(samples)["scores"]) > 20


def test_a_symmetric_target_quantizes_to_signed_codes(model: Model) -> None:
    symmetric = replace(TARGET, activation="int8")
    made, _ = quantized(model, symmetric, methods=CORRECTED)
    for node in graphs.computes(made.graph):
        if graphs.operator(node) == "QuantizeLinear":
            zero = graphs.constant(node.args[2])
            assert zero is not None
            assert (zero.dtype, int(zero)) == (torch.int8, 0)
    (samples,) = batches(model, 1)
    assert signal_to_noise(made(samples)["scores"], model(samples)["scores"]) > 20
