"""Parity of the simulation and real engines, and every way in which it can be missed."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from convkit.compress import record
from convkit.compress.data import Data
from convkit.compress.errors import ConvkitError
from convkit.compress.model import ModelRef, load
from convkit.runtimes.parity.checks import Check, Tolerance
from convkit.runtimes.parity.compare import Comparison, compare
from convkit.runtimes.parity.difference import Difference
from convkit.runtimes.parity.pair import Pair
from tests.compress.network import Net
from tests.runtimes import network, quantized

ENGINES = ("eager", "onnxruntime", "openvino")
DEPARTURES = ("stem", "depthwise", "pointwise", "head")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    return {"int8": quantized.write(folder / "int8.onnx"), "float": str(folder / "int8.float.onnx")}


def samples(count: int = 5) -> Data:
    found = network.sample(count, seed=7)
    labels = np.arange(count) % network.CLASSES
    return Data(found, labels, record.digest_arrays(found))


def compared(
    reference: str, candidate: str, *engines: str, tolerance: Tolerance | None = None, metric: tuple[str, ...] = ()
) -> Comparison:
    pair = Pair(load(ModelRef(reference)), load(ModelRef(candidate)), candidate)
    return compare(pair, samples(), engines, tolerance or Tolerance(), layers=True, metric=metric)


def of(found: Comparison, engine: str, measure: str) -> list[Check]:
    return [check for check in found.checks if (check.engine, check.measure) == (engine, measure)]


def test_a_float_net_on_every_engine(files: dict[str, str]) -> None:
    found = compared(files["float"], files["float"], *ENGINES)
    assert found.passed
    for engine in ENGINES:
        layers = [check.layer for check in of(found, engine, "relative") if check.layer]
        assert [name for name in dict.fromkeys(layers) if name in DEPARTURES] == list(DEPARTURES)


def test_codes_of_a_quantized_net_on_every_engine(files: dict[str, str]) -> None:
    found = compared(files["int8"], files["int8"], *ENGINES)
    assert found.passed
    for engine in ("eager", "onnxruntime"):
        codes = of(found, engine, "codes") + of(found, engine, "end_to_end")
        assert len(codes) >= 14
        assert all(check.value == 1.0 for check in codes)
        assert all(check.limit is not None for check in codes)
    assert min(check.value for check in of(found, "openvino", "codes")) >= 0.999
    assert all(check.limit is None for check in of(found, "openvino", "end_to_end"))


def test_behind_a_layer_in_float_codes_are_asked_of_the_same_inputs_only(tmp_path: Path) -> None:
    """Its last bits are each engine's own; what follows of them is told, and is no failure."""
    path = quantized.write(tmp_path / "mixed.onnx", exclude=["stem"])
    found = compared(path, path, "onnxruntime")
    assert found.passed
    layers = {"stem", "depthwise", "pointwise", "sum", "pool"}
    whole = {check.layer: check.limit for check in of(found, "onnxruntime", "end_to_end")}
    assert {whole[name] for name in layers} == {None}
    codes = {check.layer: check.limit for check in of(found, "onnxruntime", "codes")}
    assert {codes[name] for name in layers} == {Tolerance().codes}
    wrong = compared(path, quantized.perturb(path, tmp_path / "wrong.onnx", "pointwise"), "onnxruntime")
    assert wrong.first_departure == {"onnxruntime": "pointwise"}


def test_probes_leave_the_fused_kernels_alone(files: dict[str, str], tmp_path: Path) -> None:
    """Q outputs as graph outputs are what QLinear kernels give anyway."""
    model = onnx.load(files["int8"])
    probes = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in probes)
    kinds = []
    for source in (files["int8"], model.SerializeToString()):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimized.onnx"), 3
        onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(tmp_path / "optimized.onnx").graph.node
        kinds.append(sorted(node.op_type for node in nodes if node.op_type != "Transpose"))
    assert kinds[0] == kinds[1]
    assert {"QLinearConv", "QLinearAdd", "QLinearGlobalAveragePool", "QGemm"} <= set(kinds[0])


def test_a_float_net_and_its_quantized_form(files: dict[str, str]) -> None:
    found = compared(files["float"], files["int8"], "onnxruntime")
    assert found.passed
    assert {(check.measure, check.tolerance) for check in found.checks} == {("sqnr", "loss")}
    strict = compared(files["float"], files["int8"], "onnxruntime", tolerance=Tolerance(loss=80.0))
    assert not strict.passed
    assert strict.first_departure["onnxruntime"] is not None


@pytest.mark.parametrize("form", ["float", "int8"])
@pytest.mark.parametrize("layer", DEPARTURES)
def test_the_layer_that_was_changed_is_named(files: dict[str, str], tmp_path: Path, form: str, layer: str) -> None:
    changed = quantized.perturb(files[form], tmp_path / "changed.onnx", layer)
    found = compared(files[form], changed, "onnxruntime", "openvino")
    assert not found.passed
    assert dict(found.first_departure) == {"onnxruntime": layer, "openvino": layer}


def test_metrics_are_those_of_simulation_and_engine(files: dict[str, str], tmp_path: Path) -> None:
    same = compared(files["int8"], files["int8"], "onnxruntime", metric=("top1", "agreement"))
    assert [(c.tensor, c.value, c.limit) for c in of(same, "onnxruntime", "metric")] == [
        ("top1", 0.0, 0.2),
        ("agreement", 100.0, None),
    ]
    changed = quantized.perturb(files["float"], tmp_path / "changed.onnx", "head")
    other = compared(files["float"], changed, "onnxruntime", metric=("agreement",))
    assert of(other, "onnxruntime", "metric")[0].value < 100.0


def test_a_fixed_batch_is_kept(tmp_path: Path) -> None:
    file = network.write(tmp_path / "two.onnx", batch=2)
    pair = Pair(load(ModelRef(file)), load(ModelRef(file)), file)
    assert compare(pair, samples(4), ["onnxruntime"], Tolerance()).passed
    assert compare(pair, samples(5), ["onnxruntime"], Tolerance()).samples == 4
    with pytest.raises(ConvkitError, match="2 samples at a time"):
        compare(pair, samples(1), ["onnxruntime"], Tolerance())


def scaled(path: Path, *outputs: str) -> Pair:
    """Scores times an input that is one number, and the mean of them, which is another."""
    net = Net("N", 3, 8, 8, seed=0)
    net.op("ReduceMean", net.op("Mul", net.head(net.conv("x", 4, 3)), "scale", name="y"), name="mean", keepdims=0)
    proto = net.proto(*outputs)
    proto.graph.input.insert(0, onnx.helper.make_tensor_value_info("scale", onnx.TensorProto.FLOAT, []))
    onnx.save(onnx.shape_inference.infer_shapes(proto), path)
    model = load(ModelRef(str(path)))
    return Pair(model, model, str(path))


def scalars(count: int) -> Data:
    x = np.random.default_rng(0).standard_normal((count, 3, 8, 8)).astype(np.float32)
    return Data({"scale": np.ones((), np.float32), "x": x}, None, "")


@pytest.mark.parametrize("count", [1, 6])
def test_an_input_of_one_number_fixes_no_batch(tmp_path: Path, count: int) -> None:
    found = compare(scaled(tmp_path / "net.onnx", "y"), scalars(count), ENGINES, Tolerance())
    assert (found.passed, found.samples) == (True, count)


def test_an_output_that_batches_do_not_join_is_left_out_of_metrics(tmp_path: Path) -> None:
    """All but the first, which is what is scored."""
    found = compare(
        scaled(tmp_path / "net.onnx", "y", "mean"), scalars(6), ["onnxruntime"], Tolerance(), metric=["agreement"]
    )
    assert [check.value for check in of(found, "onnxruntime", "metric")] == [100.0]
    with pytest.raises(ConvkitError, match="output 'mean' is \\[\\], which no metric joins"):
        compare(
            scaled(tmp_path / "net.onnx", "mean", "y"), scalars(6), ["onnxruntime"], Tolerance(), metric=["agreement"]
        )


def test_networks_of_different_interfaces_are_refused(files: dict[str, str], tmp_path: Path) -> None:
    model = onnx.load(files["float"])
    model.graph.output.append(onnx.ValueInfoProto(name="sum", type=model.graph.output[0].type))
    model.graph.output[-1].type.tensor_type.shape.Clear()
    model = onnx.shape_inference.infer_shapes(model)
    onnx.save(model, tmp_path / "two.onnx")
    with pytest.raises(ConvkitError, match="outputs do not match"):
        compared(files["float"], str(tmp_path / "two.onnx"), "onnxruntime")


FLOATS = arrays.arrays(np.float32, (2, 7), elements=st.floats(-100, 100, width=32))


@given(FLOATS, FLOATS)
def test_differences_over_batches_are_those_of_the_whole(reference: np.ndarray, candidate: np.ndarray) -> None:
    whole, parts = Difference(), Difference()
    whole.add(reference, candidate)
    for one, other in zip(reference, candidate, strict=True):
        parts.add(one, other)
    assert (parts.equal, parts.relative) == (whole.equal, whole.relative)
    assert parts.sqnr == pytest.approx(whole.sqnr, abs=1e-6)
    assert whole.equal == np.mean(reference == candidate)


@given(FLOATS)
def test_the_same_arrays_do_not_differ(array: np.ndarray) -> None:
    difference = Difference()
    difference.add(array, array.copy())
    assert (difference.equal, difference.relative, difference.sqnr) == (1.0, 0.0, 200.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_none_is_as_far_as_can_be(bad: float) -> None:
    difference = Difference()
    difference.add(np.array([1.0, 2.0], np.float32), np.array([1.0, bad], np.float32))
    assert difference.relative == 1e30
    assert difference.sqnr == -200.0


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.uint8])
def test_integers_are_the_same_or_not(dtype: type) -> None:
    found = Difference()
    found.add(np.array([0, 1, 1, 0], dtype), np.array([0, 1, 0, 0], dtype))
    assert found.exact
    assert found.equal == 0.75


def test_classes_that_differ_are_told(tmp_path: Path) -> None:
    """An output of indices, which has no noise."""
    for name, sign in (("one", 1), ("other", -1)):
        net = Net("N", 3, 8, 8, seed=0)
        scores = net.op("Flatten", net.op("GlobalAveragePool", net.conv("x", 4, 3)))
        net.op("ArgMax", scores if sign > 0 else net.op("Neg", scores), name="classes", axis=1)
        net.save(tmp_path / f"{name}.onnx", "classes")
    x = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)
    data = Data({"x": x}, None, "")
    for candidate, passes in (("one", True), ("other", False)):
        pair = Pair(
            *(load(ModelRef(str(tmp_path / f"{n}.onnx"))) for n in ("one", candidate)),
            str(tmp_path / f"{candidate}.onnx"),
        )
        found = compare(pair, data, ("onnxruntime",), Tolerance())
        assert found.passed is passes
        assert [check.measure for check in found.checks] == ["codes"]


def test_a_network_in_fp16_is_held_to_its_own_noise(tmp_path: Path) -> None:
    net = Net("N", 3, 8, 8, seed=0)
    half = net.op("Cast", "x", to=onnx.TensorProto.FLOAT16)
    net.op("Cast", net.op("Sigmoid", half), name="y", to=onnx.TensorProto.FLOAT)
    net.save(tmp_path / "half.onnx", "y")
    model = load(ModelRef(str(tmp_path / "half.onnx")))
    assert Pair(model, model, "").rounded(model)


def test_shapes_that_differ_are_as_far_as_can_be() -> None:
    difference = Difference()
    difference.add(np.ones((2, 3), np.float32), np.ones((3, 2), np.float32))
    assert (difference.equal, difference.relative, difference.sqnr) == (0.0, 1e30, -200.0)
