"""The simulation of whole networks: what it fuses, what it leaves, and that ONNX Runtime gives the same codes."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from convkit.compress import graph as graphs
from convkit.compress import parts, simulate
from convkit.compress import target as targets
from convkit.compress.model import Model, ModelRef, load
from convkit.export.onnx import to_onnx
from tests import here
from tests.compress import network as small
from tests.runtimes import network, quantized


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return quantized.write(tmp_path_factory.mktemp("quantized") / "net.onnx")


def kernels(model: Model) -> list[str]:
    return [graphs.operator(node) for node in graphs.computes(model.graph)]


def outputs(model: Model, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [tensor.numpy() for tensor in model({k: torch.from_numpy(v) for k, v in inputs.items()}).values()]


def test_a_whole_net_gives_the_engine_s_numbers(file: str) -> None:
    simulated = simulate.integers(load(ModelRef(file)))
    inputs = network.sample(16, seed=3)
    (wanted,) = onnxruntime.InferenceSession(file, here.exact(), providers=["CPUExecutionProvider"]).run(None, inputs)
    assert np.array_equal(outputs(simulated, inputs)[0], wanted)


def test_every_group_becomes_one_kernel_and_the_model_given_stays(file: str) -> None:
    model = load(ModelRef(file))
    before, numbers = str(model.graph.graph), outputs(model, network.sample())
    simulated = simulate.integers(model)
    assert str(model.graph.graph) == before
    assert np.array_equal(outputs(model, network.sample())[0], numbers[0])
    assert [kind for kind in kernels(simulated) if kind.islower()] == [
        *("conv", "conv", "conv", "add", "global_average_pool", "gemm"),
    ]
    assert kernels(simulated).count("QuantizeLinear") <= 2
    assert kernels(simulate.integers(simulated)) == kernels(simulated)


def test_names_of_codes_stay(file: str) -> None:
    model = load(ModelRef(file))
    names = {graphs.value(n) for n in model.graph.graph.nodes if graphs.operator(n) == "QuantizeLinear"}
    assert names <= {graphs.value(n) for n in simulate.integers(model).graph.graph.nodes}


def test_a_float_net_is_left_alone(file: str) -> None:
    model = load(ModelRef(file.replace(".onnx", ".float.onnx")))
    assert not simulate.is_quantized(model)
    assert kernels(simulate.integers(model)) == kernels(model)


def chain(path: Path, middle: list[onnx.NodeProto], zero: int, bias: np.ndarray | None, *, leak: bool = False) -> str:
    """x → Q/DQ → Conv → `middle` → Q/DQ; `leak` also gives the conv's own result away."""
    rng = np.random.default_rng(4)
    held = {
        "sx": np.float32(0.03),
        "zx": np.uint8(120),
        "w": rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
        "sw": rng.uniform(0.002, 0.01, 4).astype(np.float32),
        "zw": np.zeros(4, np.int8),
        "sy": np.float32(0.05),
        "zy": np.uint8(zero),
        "six": np.float32(6.0),
        "none": np.float32(0.0),
    }
    held |= {} if bias is None else {"b": bias}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd", *(["b"] if bias is not None else [])], ["c"], name="conv"),
        *middle,
        helper.make_node("QuantizeLinear", [middle[-1].output[0] if middle else "c", "sy", "zy"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "sy", "zy"], ["y"]),
    ]
    results = [helper.make_tensor_value_info(name, 1, ["N", 4, 6, 6]) for name in (["y", "c"] if leak else ["y"])]
    inputs = [helper.make_tensor_value_info("x", 1, ["N", 3, 8, 8])]
    initializers = [numpy_helper.from_array(np.asarray(a), n) for n, a in held.items()]
    graph = helper.make_graph(nodes, "chain", inputs, results, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return str(path)


HERE = [name for name in parts.names("recipes/targets", ".yaml") if targets.load(name).engine in here.engines()]
"""Targets whose engines run here, and compute in integers as the simulation does, code for code."""


@pytest.mark.parametrize("target", HERE)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=4)
def test_what_convkit_quantizes_itself(target: str, seed: int) -> None:
    model, _ = small.quantized(small.residual(seed=seed).model("scores"), targets.load(target))
    inputs = {"x": np.random.default_rng(seed).standard_normal((8, 3, small.SIZE, small.SIZE)).astype(np.float32)}
    file = to_onnx(model).SerializeToString()
    (wanted,) = onnxruntime.InferenceSession(file, here.exact(), providers=["CPUExecutionProvider"]).run(None, inputs)
    simulated = simulate.integers(model)
    assert {"Conv", "Add", "GlobalAveragePool"}.isdisjoint(kernels(simulated))
    found = outputs(simulated, inputs)[0]
    assert np.abs(found - wanted).max() <= 1e-6 * np.abs(wanted).max()


RELU = [helper.make_node("Relu", ["c"], ["r"])]
CLIP = [helper.make_node("Clip", ["c", "none", "six"], ["r"])]


@pytest.mark.parametrize(
    ("middle", "zero", "leak", "fused"),
    [
        pytest.param([], 7, False, True, id="bare"),
        pytest.param(RELU, 0, False, True, id="relu that the codes saturate at"),
        pytest.param(RELU, 7, False, False, id="relu that they do not"),
        pytest.param(CLIP, 0, False, False, id="clip below the codes' end"),
        pytest.param([], 7, True, False, id="a conv that others read"),
    ],
)
@pytest.mark.parametrize("bias", [None, np.array([0.3, -1.0, 0.0, 2.5], np.float32)], ids=["no bias", "float bias"])
def test_groups_are_fused_where_the_engine_fuses_them(
    tmp_path: Path, middle: list[onnx.NodeProto], zero: int, leak: bool, fused: bool, bias: np.ndarray | None
) -> None:
    file = chain(tmp_path / "chain.onnx", middle, zero, bias, leak=leak)
    options = here.exact()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    engine = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    simulated = simulate.integers(load(ModelRef(file)))
    assert ("QLinearConv" in engine, "conv" in kernels(simulated)) == (fused, fused)
    inputs = {"x": np.random.default_rng(5).standard_normal((64, 3, 8, 8)).astype(np.float32)}
    different = outputs(simulated, inputs)[0] != session.run(["y"], inputs)[0]
    # Left in float, sums end in other last bits; and ONNX Runtime rounds a float bias to int32 steps all the same.
    assert np.mean(different) <= (0.0 if fused else 1e-4 if bias is None else 1e-3)
