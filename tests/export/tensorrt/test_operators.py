"""What lint says of each operator of ONNX is what the builder does, on the networks of a node that ONNX tests it by."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from convkit.compress.errors import ConvkitError
from convkit.export import lint
from convkit.export.tensorrt import build
from convkit.export.tensorrt.request import Settings

RTX = "tensorrt_rtx"
SM = 89
OPSET = 21
KINDS = (onnx.TensorProto.FLOAT, onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.BOOL)
ELSEWHERE = {
    "Attention": "its builder takes it for networks of half precision",
    "BlackmanWindow": "its size is what it makes",
    "CausalConvWithState": "of a later opset",
    "ConstantOfShape": "its size is an input in the test",
    "HammingWindow": "its size is what it makes",
    "HannWindow": "its size is what it makes",
    "LinearAttention": "of a later opset",
    "Loop": "its body is not looked into",
    "OneHot": "its depth is an input in the test",
    "Range": "its size is an input in the test",
    "Scan": "its body is not looked into",
    "STFT": "its step is an input in the test",
    "TensorScatter": "of a later opset",
    "Upsample": "of opset 9",
}


def networks() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Operator and network, whose inputs of whole numbers behind the first are constants, as exporters have them."""
    seen: dict[str, int] = {}
    for case in collect_testcases(None):
        model = case.model
        if model is None or len(model.graph.node) != 1 or not _fits(model):
            continue
        operator = model.graph.node[0].op_type
        if operator in ELSEWHERE or "empty" in case.name or seen.setdefault(operator, 0) == 2:
            continue
        seen[operator] += 1
        yield case.name, _held(model, case.data_sets[0][0])


def _fits(model: onnx.ModelProto) -> bool:
    values = (*model.graph.input, *model.graph.output)
    plain = all(value.type.tensor_type.elem_type in KINDS for value in values)
    return plain and all(entry.domain in ("", "ai.onnx") for entry in model.opset_import)


def _held(model: onnx.ModelProto, inputs: Sequence[np.ndarray]) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    made.ir_version = min(made.ir_version, 10)
    for entry in made.opset_import:
        entry.version = min(max(entry.version, 9), OPSET)
    for value, array in list(zip(model.graph.input, inputs, strict=True))[1:]:
        if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT or value.name in ("scales", "roi"):
            made.graph.input.remove(value)
            made.graph.initializer.append(numpy_helper.from_array(array, value.name))
    return made


def _built(model: onnx.ModelProto, path: Path) -> str:
    onnx.save(model, path)
    try:
        build.build(RTX, path, Settings(sm=SM))
    except ConvkitError as error:
        return error.message
    return ""


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # ONNX's, where it makes their inputs
def test_what_lint_says_of_an_operator_is_what_the_builder_does(tmp_path: Path) -> None:
    count, differ = 0, {}
    for name, model in networks():
        found = lint.lint(model, RTX, lint.Device(SM))
        refused = _built(model, tmp_path / "model.onnx")
        count += 1
        if bool(found) != bool(refused):
            differ[name] = ([one.words for one in found], refused)
    assert count > 250
    assert not differ
