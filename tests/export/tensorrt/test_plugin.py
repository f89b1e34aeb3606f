"""Layers of the user's own: whose they are taken for, and what is said of a plugin that fails."""

from pathlib import Path

import onnx
import pytest

from convkit.compress import record
from convkit.compress.errors import ConvkitError
from convkit.export import lint
from convkit.export.tensorrt import build, plugin
from convkit.export.tensorrt.asserted import build_and_assert
from convkit.export.tensorrt.request import Settings
from tests.export.tensorrt import custom
from tests.export.tensorrt.custom import TWICE, failing, saved, without

RTX = "tensorrt_rtx"


def with_plugins(*files: Path) -> Settings:
    return Settings(sm=89, plugins=tuple(map(str, files)))


def made_by(folder: Path, **names: str) -> Path:
    """Twice under another `name`, `version` or `namespace`."""
    known = {"name": "Twice", "version": "1", "namespace": custom.DOMAIN} | names
    text = TWICE.read_text()
    was = 'name, version, namespace = "Twice", "1", "convkit"'
    assert was in text
    now = f"name, version, namespace = {known['name']!r}, {known['version']!r}, {known['namespace']!r}"
    (folder / "named.py").write_text(text.replace(was, now))
    return folder / "named.py"


def test_without_a_plugin_the_node_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with pytest.raises(ConvkitError, match="does not take this network: Twice 'own': nobody knows convkit::Twice"):
        build_and_assert(RTX, path, Settings(sm=89))
    wanted = "refuses net.onnx at Twice 'own': there is no such operator, and no plugin of its name, version and"
    with pytest.raises(ConvkitError, match=wanted) as caught:
        build.build(RTX, path, Settings(sm=89))
    assert "--plugin FILE" in caught.value.hint


def test_a_plugin_in_python_is_built_into_an_engine_that_does_not_hold_it(tmp_path: Path) -> None:
    path = saved(tmp_path)
    found = build_and_assert(RTX, path, with_plugins(TWICE))
    assert [(one.planned, one.ran) for one in found.findings] == [("fp32", "fp32")] * 2
    assert [layer.name for layer in found.built.layers if "own" in layer.nodes]
    assert found.plugins == [plugin.Plugin("twice.py", record.digest_file(TWICE), in_engine=False)]
    assert not list(TWICE.parent.glob("__pycache__/twice.*.pyc"))
    assert build_and_assert(RTX, path, with_plugins(TWICE)).built.engine == found.built.engine


def test_attributes_that_the_creator_names_reach_it(tmp_path: Path) -> None:
    """They are what it serializes, in the engine."""
    two = build.build(RTX, saved(tmp_path), with_plugins(TWICE)).engine
    three = build.build(RTX, saved(tmp_path, factor=3.0, other=[1]), with_plugins(TWICE)).engine
    assert two != three


def test_a_body_in_the_file_needs_no_plugin_and_goes_before_one(tmp_path: Path) -> None:
    path = saved(tmp_path, body=True)
    with_body = build_and_assert(RTX, path, Settings(sm=89))
    assert [one.holds for one in with_body.findings] == [True] * 2
    assert build_and_assert(RTX, path, with_plugins(TWICE)).built.engine == with_body.built.engine
    asked = saved(tmp_path, body=True, plugin_namespace="convkit")
    assert build.build(RTX, asked, with_plugins(TWICE)).engine != with_body.built.engine


NAMES = {
    "the domain is its namespace": ({}, {}, True),
    "or it has none": ({}, {"namespace": ""}, True),
    "another is none": ({}, {"namespace": "mine"}, False),
    "unless the node says so": ({"plugin_namespace": "mine"}, {"namespace": "mine"}, True),
    "the domain is no part of its name": ({}, {"name": "convkit::Twice"}, False),
    "the opset of the domain is no version": ({}, {"version": "3"}, False),
    "that is an attribute": ({"plugin_version": "3"}, {"version": "3"}, True),
}


@pytest.mark.parametrize("case", NAMES)
def test_what_the_parser_looks_for(tmp_path: Path, case: str) -> None:
    attributes, names, found = NAMES[case]
    path, settings = saved(tmp_path, **attributes), with_plugins(made_by(tmp_path, **names))
    if found:
        assert build.build(RTX, path, settings).engine
    else:
        with pytest.raises(ConvkitError, match="Twice 'own': there is no such operator"):
            build.build(RTX, path, settings)


NAMELESS = """
def register(trt):
    class Creator(trt.IPluginCreatorV3One):
        def __init__(self):
            trt.IPluginCreatorV3One.__init__(self)
    trt.get_plugin_registry().register_creator(Creator(), "")
"""
WRONG = {
    "no function": ("x = 1\n", "plugin wrong.py has no function register; write register(trt)"),
    "no function either": ("register = 1\n", "plugin wrong.py has no function register; write register(trt)"),
    "an exception": (
        "import os\n\n\nraise ValueError('no\\nway')\n",
        "plugin wrong.py fails in line 4: ValueError: no;",
    ),
    "one within": ("def register(trt):\n    trt.nothing\n", "plugin wrong.py fails in line 2: AttributeError: "),
    "one of a package": ("import json\njson.loads('{')\n", "plugin wrong.py fails in line 2: JSONDecodeError: "),
    "none but its type": ("def register(trt):\n    assert not trt\n", "fails in line 2: AssertionError: no words;"),
    "no syntax": ("def register(trt)\n", "plugin wrong.py fails in line 1: SyntaxError: expected ':'"),
    "no text": ("\0", "plugin wrong.py fails: "),
    "an end": ("import sys\nsys.exit(3)\n", "plugin wrong.py fails in line 2: SystemExit: 3;"),
    "no parameter": ("def register():\n    pass\n", "plugin wrong.py fails: TypeError: register() takes 0"),
    "nothing": ("def register(trt):\n    pass\n", "plugin wrong.py registers no creator; write register(trt)"),
    "a creator without a name": (
        NAMELESS,
        "plugin wrong.py fails as the engine is built, in name(): AttributeError: name not initialized",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_registers_nothing_is_one_line(tmp_path: Path, case: str) -> None:
    text, message = WRONG[case]
    (tmp_path / "wrong.py").write_text(text)
    with pytest.raises(ConvkitError) as caught:
        build.build(RTX, saved(tmp_path), with_plugins(tmp_path / "wrong.py"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_that_is_there_already_is_refused(tmp_path: Path) -> None:
    other = made_by(tmp_path)
    with pytest.raises(ConvkitError, match="plugin named.py registers no creator.*may be there already"):
        build.build(RTX, saved(tmp_path), with_plugins(TWICE, other))


ASKED = (
    "create_plugin",
    "get_capability_interface",  # what it raises makes the builder crash
    "clone",  # this too
    "get_output_data_types",
    "get_output_shapes",
    "supports_format_combination",
    "configure_plugin",
    "get_fields_to_serialize",  # and of this TensorRT builds an engine, without the fields
)


@pytest.mark.parametrize("method", ASKED)
def test_a_plugin_that_raises_as_the_engine_is_built_is_named(tmp_path: Path, method: str) -> None:
    file, line = failing(tmp_path, method)
    with pytest.raises(ConvkitError) as caught:
        build.build(RTX, saved(tmp_path), with_plugins(file))
    wanted = f"plugin failing.py fails as the engine is built, line {line}, in {method}(): ValueError: thrice"
    assert caught.value.message == wanted


def test_a_method_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConvkitError, match="plugin lacking.py fails as the engine is built, in get_output_shapes\\(\\)"
    ):
        build.build(RTX, saved(tmp_path), with_plugins(without(tmp_path, "get_output_shapes")))


def test_of_several_the_one_that_raised_is_named(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(made_by(tmp_path, name="Other").read_text())
    file, line = failing(tmp_path, "clone")
    with pytest.raises(ConvkitError, match=f"plugin failing.py fails as the engine is built, line {line}, in clone"):
        build.build(RTX, saved(tmp_path), with_plugins(tmp_path / "other.py", file))


def test_one_that_ends_the_process_is_named(tmp_path: Path) -> None:
    (tmp_path / "end.py").write_text("import os\n\n\ndef register(trt):\n    os.abort()\n")
    with pytest.raises(ConvkitError, match="crashed \\(SIGABRT\\)") as caught:
        build.build(RTX, saved(tmp_path), with_plugins(tmp_path / "end.py"))
    assert caught.value.hint.endswith("unless it was end.py, which ran in it")


def test_words_of_one_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    """Whether the engine is built or not."""
    bytes_ = "import os\n\nos.write({}, b'\\xff\\xfe\\n')\n"
    (tmp_path / "loud.py").write_text("".join(map(bytes_.format, (1, 2))) + TWICE.read_text().partition('"""\n')[2])
    assert build.build(RTX, saved(tmp_path), with_plugins(tmp_path / "loud.py")).engine
    (tmp_path / "end.py").write_text(bytes_.format(2) + "os.abort()\n")
    with pytest.raises(ConvkitError, match="crashed \\(SIGABRT\\)"):
        build.build(RTX, saved(tmp_path), with_plugins(tmp_path / "end.py"))


def test_what_processes_write_otherwise_is_no_failure() -> None:
    assert plugin.raised("[ERROR] Exception caught in clone(): ValueError: no", ["lib.so"]) is None
    assert plugin.raised("Warning: an Exception\n", ["twice.py"]) is None
    found = plugin.raised("[ERROR] Exception caught in clone(): ValueError: no", ["a/one.py", "two.py"])
    assert found is not None
    assert found.message == "plugin one.py or two.py fails as the engine is built, in clone(): ValueError: no"


@pytest.mark.parametrize("held", [True, False])
def test_an_engine_for_later_versions_holds_libraries_alone(tmp_path: Path, *, held: bool) -> None:
    files = [str(tmp_path / "lib.so"), str(tmp_path / "twice.py")]
    for file in files:
        Path(file).write_bytes(b"")
    assert plugin.libraries(files) == files[:1]
    assert [one.in_engine for one in plugin.described(files, held=held)] == [held, False]


def test_lint_takes_an_operator_for_a_plugins(tmp_path: Path) -> None:
    model = custom.network()
    assert [finding.node for finding in lint.lint(model, RTX)] == ["own"]
    assert lint.lint(model, RTX, lint.Device(plugins=True)) == []
    assert lint.lint(custom.network(body=True), RTX) == []
    onnx.checker.check_model(model, full_check=True)
