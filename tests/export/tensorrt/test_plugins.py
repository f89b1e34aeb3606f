"""Operators that TensorRT does not know: built with a plugin in Python or with a body, refused without either."""

import json
from pathlib import Path

import onnx
import pytest

from convkit.compress import record
from convkit.compress.errors import ConvkitError
from convkit.export.tensorrt import build
from convkit.export.tensorrt.asserted import build_and_assert
from convkit.export.tensorrt.request import Settings
from tests.command_line import Convkit
from tests.export.tensorrt import twice

RTX = "tensorrt_rtx"


def novel(folder: Path, *, body: bool = False) -> Path:
    """A network with an operator Twice of somebody's own, perhaps with a body in standard operators."""
    make = onnx.helper.make_node
    nodes = [make("Relu", ["x"], ["a"], "a"), make("Twice", ["a"], ["b"], "twice", domain="some.where")]
    nodes.append(make("Relu", ["b"], ["y"], "y"))
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4, 8, 8]) for name in "xy"]
    opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("some.where", 1)]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "net", values[:1], values[1:]), opset_imports=opsets, ir_version=10
    )
    if body:
        add = [make("Add", ["v", "v"], ["w"])]
        model.functions.append(onnx.helper.make_function("some.where", "Twice", ["v"], ["w"], add, opsets[:1]))
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


TWICE = str(Path(twice.__file__))


def test_a_plugin_in_python_is_built_in(tmp_path: Path) -> None:
    found = build_and_assert(RTX, novel(tmp_path), Settings(sm=89, plugins=(TWICE,)))
    assert [layer.kind for layer in found.built.layers if "twice" in layer.nodes] == ["custom_layer"]


def test_a_body_in_standard_operators_needs_no_plugin(tmp_path: Path) -> None:
    found = build_and_assert(RTX, novel(tmp_path, body=True), Settings(sm=89))
    assert "custom_layer" not in {layer.kind for layer in found.built.layers}


PLUGINS = {
    "def register(trt):\n    pass\n": "registers no creator",
    "registers = 1\n": r"has no function register\(trt\)",
    "import nowhere_at_all\n": "fails in line 1: ModuleNotFoundError: No module named 'nowhere_at_all'",
    "def register(trt):\n    trt.nothing\n": "fails in line 2: AttributeError",
    "def register(trt:\n": "fails in line 1: SyntaxError",
}


@pytest.mark.parametrize("text", PLUGINS)
def test_a_plugin_in_python_that_is_none_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(ConvkitError, match=f"the plugin {file} {PLUGINS[text]}"):
        build.build(RTX, novel(tmp_path), Settings(sm=89, plugins=(str(file),)))


def test_a_plugin_that_fails_in_the_build_is_one_line(tmp_path: Path) -> None:
    text = Path(TWICE).read_text().replace("return [trt.DimsExprs(inputs[0])]", "raise ValueError('no shape')")
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ConvkitError, match="no shape") as caught:
        build.build(RTX, novel(tmp_path), Settings(sm=89, plugins=(str(tmp_path / "mine.py"),)))
    assert "\n" not in str(caught.value.message)


def test_a_file_with_somebodys_own_operator_is_exported_as_it_stands(convkit: Convkit, tmp_path: Path) -> None:
    """Though convkit itself cannot compute it; the manifest says which plugin it was built with."""
    words = ("export", str(novel(tmp_path)), "--target", "trt-rtx", "--sm", "89")
    done = convkit(*words, "--plugin", TWICE, "-o", str(tmp_path / "out"))
    assert done.code == 0, done.err
    assert (tmp_path / "out/model.onnx").read_bytes() == (tmp_path / "net.onnx").read_bytes()
    digests = json.loads((tmp_path / "out/manifest.json").read_text())["digests"]
    assert digests["plugin twice.py"] == record.digest_file(TWICE)
    assert digests["model"] == record.digest_file(tmp_path / "net.onnx")
    without = convkit(*words, "-o", str(tmp_path / "none"))
    assert without.code == 2
    assert "nobody knows some.where::Twice" in without.err
    assert not (tmp_path / "none").exists()


def test_lint_takes_what_has_a_plugin(convkit: Convkit, tmp_path: Path) -> None:
    words = ("lint", str(novel(tmp_path)), "--target", "trt-rtx", "--sm", "89")
    assert (convkit(*words).code, convkit(*words, "--plugin").code) == (1, 0)
