"""Packed weights: as small as their bits, and the very codes again in every engine, in its 8-bit kernels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator

from convkit.compress import format as formats
from convkit.compress import promotion
from convkit.compress import target as targets
from convkit.compress.apply import apply
from convkit.compress.model import ModelRef, load
from convkit.compress.plan import LayerPlan, Plan, Range
from convkit.export import exporter, packing
from convkit.export.graph import GraphWriter
from convkit.export.lint import Device, lint
from convkit.export.onnx import size_in_bytes, to_onnx
from convkit.runtimes.openvino import OpenVinoSession
from convkit.runtimes.session import Options
from tests.compress.network import Net, fused

TARGET = targets.load("onnxruntime-cpu")
INTEGERS = [f"int{bits}" for bits in range(2, 8)]
FLOATS = ["fp4_e2m1", "e2m1", "e2m3", "e3m2", "e2m2", "e3m4", "e4m3", "e5m6"]


def codes_of(name: str, *shape: int, seed: int = 0) -> torch.Tensor:
    number = formats.load(name)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    scale, zero = number.parameters(torch.tensor(-2.0), torch.tensor(2.0))
    return number.codes(x, scale, zero)


def unpacked(name: str, codes: torch.Tensor) -> np.ndarray:
    """What onnx's own evaluator makes of the packed file."""
    graph = GraphWriter(21)
    found = packing.write(graph, "w", codes, formats.load(name))
    graph.node("Cast", "numbers", [found], ["numbers"], to=torch.float32)
    shape = helper.make_tensor_value_info("numbers", 1, list(codes.shape))
    proto = helper.make_graph(graph.nodes, "packed", [], [shape], graph.initializers)
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    result: np.ndarray = ReferenceEvaluator(model).run(None, {})[0]
    return result


@pytest.mark.parametrize("name", INTEGERS + FLOATS)
@settings(max_examples=8)
@given(outputs=st.integers(1, 5), inputs=st.integers(1, 7), seed=st.integers(0, 100))
def test_unpacking_gives_the_codes(name: str, outputs: int, inputs: int, seed: int) -> None:
    codes = codes_of(name, outputs, inputs, 3, seed=seed)
    found = unpacked(name, codes)
    assert np.array_equal(found, codes.float().numpy())
    assert np.array_equal(np.signbit(found), np.signbit(codes.float().numpy()))  # -0 is not 0


@pytest.mark.parametrize("name", INTEGERS + FLOATS)
def test_every_code_survives(name: str) -> None:
    number = formats.load(name)
    if name.startswith("int"):
        codes = torch.arange(-(2 ** (number.bits - 1)), 2 ** (number.bits - 1)).to(number.dtype())
    else:
        positive = number.magnitudes()  # type: ignore[attr-defined]
        codes = torch.cat([positive, -positive]).to(number.dtype())
    assert len(codes) == 2**number.bits
    assert np.array_equal(unpacked(name, codes), codes.float().numpy())


def test_it_is_done_where_it_saves() -> None:
    assert packing.worth_it(formats.load("int4"), codes_of("int4", 64, 64))
    assert not packing.worth_it(formats.load("int4"), codes_of("int4", 8, 8))
    for name in ("int7", "int8", "fp8_e4m3", "int16", "bf16"):
        assert not packing.worth_it(formats.load(name), codes_of(name, 64, 64)), name


def planned(weight: str, activation: str = "uint8") -> tuple[Net, Plan, str]:
    net = Net("N", 32, 8, 8, seed=1)
    model = net.model(net.conv("x", 48, 3))
    ranges = {"x": Range(-3.0, 3.0, "minmax"), "conv0": Range(-4.0, 4.0, "minmax")}
    plan = Plan(model.digest, TARGET.name, (), {"conv0": LayerPlan(activation, weight)}, ranges)
    return net, plan, "conv0"


def written(weight: str) -> tuple[onnx.ModelProto, torch.Tensor, np.ndarray]:
    """The file, an input, and what the network gives in eager mode."""
    net, plan, name = planned(weight)
    made = apply(net.model(name), plan, TARGET)
    x = torch.randn(4, 32, 8, 8, generator=torch.Generator().manual_seed(1))
    return to_onnx(made), x, made({"x": x})[name].numpy()


@pytest.mark.parametrize("name", INTEGERS)
def test_a_file_is_as_small_as_its_bits_and_runs_in_integers(name: str, tmp_path: Path) -> None:
    net, plan, output = planned(name)
    made = apply(net.model(output), plan, TARGET)
    file = to_onnx(made)
    onnx.checker.check_model(file, full_check=True)
    weight = 48 * 32 * 9
    assert 0 <= size_in_bytes(file) - (formats.load(name).filed_bytes(weight) + 3 * 48 * 4) < 400
    assert fused(made, tmp_path)["QLinearConv"] == 1


@pytest.mark.parametrize("name", [*INTEGERS, "fp4_e2m1", "e2m3", "e3m4"])
def test_engines_unpack_what_was_packed(name: str, tmp_path: Path) -> None:
    file, x, wanted = written(name)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x.numpy()})
    step = 8 / 255
    onnx.save(file, tmp_path / "packed.onnx")
    opened = OpenVinoSession(str(tmp_path / "packed.onnx"), Options())
    for result in (found, opened.run({"x": x.numpy()})["conv0"]):
        assert np.abs(result - wanted).max() < step * 1.01  # a code, where float sums end in other bits
        assert np.mean(np.abs(result - wanted) > step / 2) < 0.01
    opened.close()


def test_reading_the_file_gives_the_same_network(tmp_path: Path) -> None:
    file, x, wanted = written("int5")
    onnx.save(file, tmp_path / "packed.onnx")
    again = load(ModelRef(str(tmp_path / "packed.onnx")))
    assert np.array_equal(again({"x": x})["conv0"].numpy(), wanted)
    assert to_onnx(again).SerializeToString() == to_onnx(again).SerializeToString()


def test_the_same_network_gives_the_same_bytes() -> None:
    one, other = (written("int6")[0].SerializeToString(deterministic=True) for _ in range(2))
    assert one == other


GPU = targets.load("trt")


@pytest.mark.parametrize("name", [*INTEGERS, "fp4_e2m1", "e3m2"])
def test_an_engine_that_cannot_unpack_takes_a_byte_each(name: str) -> None:
    activation = GPU.formats[name].speed
    net, plan, output = planned(name, activation)
    made = apply(net.model(output), plan, GPU)
    file = exporter.of_engine(GPU.engine).proto(made, GPU.opset)
    assert not lint(file, GPU.engine, Device(89))
    foretold = promotion.plan_bytes(net.model(output).graph, plan.layers, packed=GPU.packed)["conv0"]
    assert 0 <= size_in_bytes(file) - foretold - 48 < 100  # a zero point for each scale, and the activations' own
    x = torch.randn(4, 32, 8, 8, generator=torch.Generator().manual_seed(1))
    session = onnxruntime.InferenceSession(to_onnx(made).SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.abs(session.run(None, {"x": x.numpy()})[0] - made({"x": x})[output].numpy()).max() < 1e-4


@pytest.mark.parametrize(("name", "activation"), [("int4", "int8"), ("fp4_e2m1", "fp8_e4m3")])
def test_a_packed_file_is_read_and_written_for_such_an_engine(name: str, activation: str, tmp_path: Path) -> None:
    net, plan, output = planned(name, activation)
    made = apply(net.model(output), plan, replace(GPU, packed=True))
    onnx.save(to_onnx(made), tmp_path / "packed.onnx")
    assert lint(onnx.load(tmp_path / "packed.onnx"), GPU.engine, Device(89))
    read = load(ModelRef(str(tmp_path / "packed.onnx")))
    x = torch.randn(4, 32, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(read({"x": x})[output], made({"x": x})[output])
    assert not lint(exporter.of_engine(GPU.engine).proto(read, GPU.opset), GPU.engine, Device(89))
