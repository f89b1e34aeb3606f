"""Every failure of TensorRT that is known is found before anything is built; ONNX's own checker finds none of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from convkit.export import lint
from convkit.export.lint import Device, Finding
from tests.conftest import Convkit

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
INT8, UINT8, INT16, E4M3, E5M2, INT4 = (
    getattr(TensorProto, name) for name in ("INT8", "UINT8", "INT16", "FLOAT8E4M3FN", "FLOAT8E5M2", "INT4")
)


def model(
    nodes: list[onnx.NodeProto], tensors: dict[str, np.ndarray | onnx.TensorProto], opset: int = 21, **more: Any
) -> onnx.ModelProto:
    held = [t if isinstance(t, TensorProto) else numpy_helper.from_array(t, name) for name, t in tensors.items()]
    graph = helper.make_graph(nodes, "net", [X], [Y], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10, **more)


def codes(name: str, kind: int, count: int = 1, value: float = 0.0, shape: tuple[int, ...] = ()) -> onnx.TensorProto:
    return helper.make_tensor(name, kind, shape, [value] * count)


def quantized(
    kind: int = INT8, scale: Any = 0.1, zero: float = 0.0, operator: str = "Conv", weight: int = INT8
) -> onnx.ModelProto:
    """A convolution on codes of `kind` and on weights of INT8, or of `weight`."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], "x_quantized"),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"], "x_dequantized"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], "w_dequantized", axis=0),
        helper.make_node(operator, ["xd", "wd"], ["y"], "conv"),
    ]
    scales = np.asarray(scale, np.float32)
    tensors = {"s": scales, "z": codes("z", kind, value=zero) if not scales.shape else codes("z", kind, 4, shape=(4,))}
    held = {"w": codes("w", weight, 144, 1.0, (4, 4, 3, 3)), "wz": codes("wz", weight, 4, shape=(4,))}
    return model(nodes, {**tensors, **held, "ws": np.full(4, 0.1, np.float32)})


def single(operator: str, domain: str = "", opset: int = 21) -> onnx.ModelProto:
    return model([helper.make_node(operator, ["x"], ["y"], "node", domain=domain)], {}, opset)


def computed_scale() -> onnx.ModelProto:
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["s"], "largest", keepdims=0),
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "x_quantized"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], "x_dequantized"),
    ]
    return model(nodes, {"z": codes("z", INT8)})


def quantized_weight(kernel: int) -> onnx.ModelProto:
    """A convolution in FP8 whose weight the file has in float, and quantizes."""
    found = quantized(E4M3, weight=E4M3)
    found.graph.node.insert(2, helper.make_node("QuantizeLinear", ["wf", "ws", "wz"], ["w"], "w_quantized", axis=0))
    held = {"wf": np.ones((4, 4, kernel, kernel), np.float32), "ws": np.full(4, 0.1, np.float32)}
    del found.graph.initializer[2:]
    found.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in held.items())
    found.graph.initializer.append(codes("wz", E4M3, 4, shape=(4,)))
    return found


def one_side() -> onnx.ModelProto:
    found = quantized()
    found.graph.node[3].input[1] = "float"
    found.graph.initializer.append(numpy_helper.from_array(np.ones((4, 4, 3, 3), np.float32), "float"))
    return found


BROKEN: dict[str, tuple[Callable[[], onnx.ModelProto], str, str, str, int | None]] = {
    "a zero point": (lambda: quantized(zero=3), "zero_points", "x_quantized", "its zero point is 3, not 0", None),
    "unsigned codes": (lambda: quantized(UINT8), "types", "x_quantized", "it has UINT8", None),
    "int16": (lambda: quantized(INT16), "types", "x_quantized", "it has INT16", None),
    "e5m2": (lambda: quantized(E5M2), "types", "x_quantized", "it has FLOAT8E5M2", None),
    "int4 activations": (lambda: quantized(INT4), "types", "x_quantized", "activations are in INT4", None),
    "fp8 on a device without": (lambda: quantized(E4M3), "types", "x_quantized", "it has FP8, SM 86 has none", 86),
    "a scale of nothing": (
        lambda: quantized(scale=0.0),
        "scales",
        "x_quantized",
        "a scale of it is 0, not a number above 0",
        None,
    ),
    "a scale below nothing": (lambda: quantized(scale=-1.0), "scales", "x_quantized", "a scale of it is -1", None),
    "a scale beyond numbers": (lambda: quantized(scale=np.inf), "scales", "x_quantized", "a scale of it is inf", None),
    "scales of channels": (
        lambda: quantized(scale=[0.1] * 4),
        "scales",
        "x_quantized",
        "activations have 4 scales",
        None,
    ),
    "a scale that is computed": (computed_scale, "scales", "x_quantized", "its scale is computed", None),
    "a transposed convolution": (
        lambda: quantized(operator="ConvTranspose"),
        "placement",
        "conv",
        "it has no kernel on codes",
        None,
    ),
    "one side": (one_side, "placement", "conv", "its weight is not", None),
    "codes of two types": (lambda: quantized(weight=E4M3), "placement", "conv", "has codes in INT8", 89),
    "weights of few bits": (lambda: quantized(weight=INT4), "placement", "conv", "its weight in INT4", None),
    "a plugin's in ONNX's own domain": (lambda: single("Rotate"), "operators", "node", "nobody knows Rotate", None),
    "a large kernel": (lambda: quantized_weight(7), "fp8_kernels", "conv", "its kernel of 7x7 has more than 32", 89),
    "deformable": (lambda: single("DeformConv"), "operators", "node", "the parser has no DeformConv", None),
    "unique": (lambda: single("Unique"), "operators", "node", "the parser has no Unique", None),
    "qlinear": (lambda: single("QLinearConv"), "operators", "node", "the parser has no QLinearConv", None),
    "integers": (lambda: single("ConvInteger"), "operators", "node", "the parser has no ConvInteger", None),
    "somebody's own": (lambda: single("Rotate", "mine"), "operators", "node", "nobody knows mine::Rotate", None),
    "an old file": (lambda: single("Relu", opset=8), "operators", "", "the file is of opset 8", None),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("engine", lint.TENSORRT)
def test_what_an_engine_refuses_is_found(case: str, engine: str) -> None:
    make, rule, node, words, sm = BROKEN[case]
    found = lint.lint(make(), engine, Device(sm))
    assert [one for one in found if (one.rule, one.node) == (rule, node) and words in one.words], found
    assert all(one.advice for one in found)


@pytest.mark.parametrize(("kind", "sm"), [(INT8, 80), (E4M3, 89), (E4M3, None)])
def test_what_it_takes_is_not_found_fault_with(kind: int, sm: int | None) -> None:
    assert lint.lint(quantized(kind, weight=kind), "tensorrt_rtx", Device(sm)) == []


@pytest.mark.parametrize("domain", ["", "TRT"])
def test_plugins_of_tensorrts_own_are_that_packages(domain: str) -> None:
    shipped = single("EfficientNMS_TRT", domain)
    assert lint.lint(shipped, "tensorrt") == []
    (found,) = lint.lint(shipped, "tensorrt_rtx")
    assert found.words == "EfficientNMS_TRT is a plugin of TensorRT's own, which TensorRT for RTX has not"
    assert lint.lint(shipped, "tensorrt_rtx", Device(plugins=True)) == []


def test_a_node_with_too_few_inputs_is_no_traceback() -> None:
    lint.lint(model([helper.make_node("DequantizeLinear", ["x"], ["y"], "short")], {}), "tensorrt")


@pytest.mark.parametrize("form", ["value_float", "identity"])
def test_a_scale_may_be_a_plain_number_in_a_node(form: str) -> None:
    found = quantized()
    del found.graph.initializer[0]
    found.graph.node.insert(0, helper.make_node("Constant", [], ["s"], "scale", value_float=0.1))
    if form == "identity":
        found.graph.node[0].output[0] = "held"
        found.graph.node.insert(1, helper.make_node("Identity", ["held"], ["s"], "same"))
    assert lint.lint(found, "tensorrt_rtx", Device(89)) == []
    found.graph.node[0].attribute[0].f = 0.0
    assert {one.rule for one in lint.lint(found, "tensorrt_rtx", Device(89))} == {"scales"}


def test_an_output_of_bytes_is_made_of_numbers() -> None:
    image = model([helper.make_node("Cast", ["x"], ["y"], "cast", to=UINT8)], {})
    image.graph.output[0].type.tensor_type.elem_type = UINT8
    assert lint.lint(image, "tensorrt_rtx") == []


def test_an_input_of_bytes_is_made_numbers() -> None:
    """What is read as other numbers are codes; a picture's bytes are not."""
    pixels = model([helper.make_node("Cast", ["x"], ["y"], "cast", to=TensorProto.FLOAT)], {})
    pixels.graph.input[0].type.tensor_type.elem_type = UINT8
    assert lint.lint(pixels, "tensorrt_rtx") == []


def test_a_layer_in_float_may_read_what_others_read_on_codes() -> None:
    """As a plan has it that keeps one of several readers in float."""
    both = one_side()
    both.graph.node.append(helper.make_node("Conv", ["xd", "wd"], ["other"], "on codes"))
    assert lint.lint(both, "tensorrt_rtx", Device(80)) == []


def test_a_plugin_or_a_body_makes_an_operator_known() -> None:
    own = single("Rotate", "mine")
    assert lint.lint(own, "tensorrt", Device(plugins=True)) == []
    body = [helper.make_node("Relu", ["a"], ["b"])]
    opsets = [helper.make_opsetid("", 21)]
    own.functions.append(helper.make_function("mine", "Rotate", ["a"], ["b"], body, opsets))
    assert lint.lint(own, "tensorrt") == []


def test_who_reads_in_a_body_is_a_reader() -> None:
    """In that of a node of a body, too; what only leaves a body is read by the node that has it."""
    inner = helper.make_node("If", ["on"], ["b"], "inner", then_branch=branch("x"), else_branch=branch("w"))
    outer = helper.make_node("If", ["on"], ["y"], "outer", then_branch=branch("b", inner), else_branch=branch("v"))
    found = lint.described(model([outer], {"on": np.array(True), "w": np.ones(1, np.float32)}))
    assert {name: len(found.readers[name]) for name in ("x", "w", "v")} == {"x": 1, "w": 1, "v": 1}
    assert [found.readers[name][0].name for name in ("x", "w", "v")] == ["inner", "inner", "outer"]
    assert [node.name for node in found.readers["on"]] == ["outer", "inner"]


def test_branches_are_looked_into() -> None:
    """What is in them is built like all else."""
    alone = quantized(UINT8)
    both = [helper.make_graph(alone.graph.node, name, [], [Y], alone.graph.initializer) for name in ("then", "other")]
    choice = helper.make_node("If", ["on"], ["y"], "choice", then_branch=both[0], else_branch=branch("x"))
    found = lint.lint(model([choice], {"on": np.array(True)}), "tensorrt")
    assert found
    assert [one.words for one in found] == [one.words for one in lint.lint(alone, "tensorrt")]


def branch(made: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
    """A body of `nodes` that makes a tensor."""
    return helper.make_graph(nodes, "branch", [], [helper.make_tensor_value_info(made, TensorProto.FLOAT, None)])


def in_a_body(operator: str, opset: int = 21) -> onnx.ModelProto:
    """The operator in the body of a function of the file's own."""
    found = single("Own", "mine")
    body = [helper.make_node(operator, ["a"], ["b"], "inner")]
    found.functions.append(helper.make_function("mine", "Own", ["a"], ["b"], body, [helper.make_opsetid("", opset)]))
    found.opset_import.append(helper.make_opsetid("mine", 1))
    return found


def test_the_command_looks_into_bodies_as_the_build_does(convkit: Convkit, tmp_path: Path) -> None:
    for operator, code in (("Relu", 0), ("Unique", 1)):
        onnx.save(in_a_body(operator), tmp_path / "net.onnx")
        done = convkit("lint", str(tmp_path / "net.onnx"), "--json")
        assert done.code == code, done.err
    assert [one["operator"] for one in json.loads(done.out)["findings"]] == ["Unique"]


def test_a_body_that_does_not_fit_is_one_line(convkit: Convkit, tmp_path: Path) -> None:
    onnx.save(in_a_body("Relu", opset=13), tmp_path / "net.onnx")
    done = convkit("lint", str(tmp_path / "net.onnx"))
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "its functions cannot be written out" in done.err


def test_a_device_that_nothing_is_built_for_is_no_clean_bill(convkit: Convkit, tmp_path: Path) -> None:
    onnx.save(quantized(), tmp_path / "net.onnx")
    words = ("lint", str(tmp_path / "net.onnx"), "--sm", "90", "--target")
    refused = convkit(*words, "trt-rtx")
    assert (refused.code, refused.out) == (2, "")
    assert "builds no engine for SM 90; --sm takes one of 75" in refused.err
    assert convkit(*words, "trt").code == 0  # it builds for the device that is there, whichever that is


def test_an_engine_without_rules_is_told(convkit: Convkit, tmp_path: Path) -> None:
    """Finding nothing there would say nothing."""
    onnx.save(quantized(UINT8, zero=3), tmp_path / "net.onnx")
    done = convkit("lint", str(tmp_path / "net.onnx"), "--target", "onnxruntime-cpu")
    assert (done.code, done.err) == (2, "error: there are no rules for onnxruntime; lint for trt or trt-rtx\n")


def test_the_command_names_node_rule_and_what_to_do(convkit: Convkit, tmp_path: Path) -> None:
    onnx.save(quantized(zero=3), tmp_path / "bad.onnx")
    onnx.save(quantized(), tmp_path / "good.onnx")
    bad, good = (convkit("lint", str(tmp_path / f"{name}.onnx"), "--target", "trt-rtx") for name in ("bad", "good"))
    assert (good.code, bad.code) == (0, 1)
    assert all(words in bad.out for words in ("x_quantized", "zero_points", "not 0", "quantize symmetrically"))
    told = json.loads(convkit("lint", str(tmp_path / "bad.onnx"), "--json").out)["findings"]
    assert {Finding(**one).rule for one in told} == {"zero_points"}


@pytest.mark.parametrize("content", [None, b"", b"no network"])
def test_what_is_no_network_is_one_line(convkit: Convkit, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "net.onnx").write_bytes(content)
    done = convkit("lint", str(tmp_path / "net.onnx"))
    assert (done.code, done.err.count("\n")) == (2, 1)
