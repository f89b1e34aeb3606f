"""The plan's text: what is written is what is read, whatever tensors are called; everything else is refused."""

import contextlib
import dataclasses
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from convkit.compress import plan as plans
from convkit.compress.errors import ConvkitError
from convkit.compress.plan import LayerPlan, Plan, Range

names = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
words = st.sampled_from(["int8", "uint8", "bf16"])
numbers = st.floats(-1e30, 1e30)
layers = st.builds(LayerPlan, words, st.none() | words, st.just("max"))
ranges = st.builds(lambda a, b: Range(min(a, b), max(a, b), "mse"), numbers, numbers)
plan_values = st.builds(
    Plan, st.text("0123456789abcdef", min_size=64, max_size=64), names, st.lists(words).map(tuple),
    st.dictionaries(names, layers, max_size=3), st.dictionaries(names, ranges, max_size=3),
    st.dictionaries(names, st.booleans() | st.integers() | names, max_size=3),
    st.dictionaries(names, st.sampled_from(["int8", "float", "int8/uint8"]), max_size=3),
)  # fmt: skip

SMALL = Plan(
    "ab" * 32,
    "onnxruntime-cpu",
    ("fold_batch_norm",),
    {"conv1": LayerPlan("uint8", "int8", "mse"), "sum": LayerPlan("uint8")},
    {"x": Range(-1.5, 2.0, "mse"), "sum": Range(0.0, 1e-05, "minmax")},
)


def read(folder: Path, text: str) -> Plan:
    path = folder / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    return plans.read(path)


@settings(max_examples=60)
@given(plan=plan_values)
def test_what_is_written_is_read(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> None:
    found = read(tmp_path_factory.getbasetemp(), plans.dump(plan))
    assert found == plan
    assert list(found.layers) == list(plan.layers)
    assert found.digest == plan.digest


@pytest.mark.parametrize(
    "name",
    ["", " ", "on", "1", "1.0", "null", "~", "a: b", "#", "{x}", "a\nb", '"', "\\", "'", "\x00", "\x85", "\ufeff",
     "😀", "é", "- a", "? a", "<<", "/model/conv/Conv_output_0", "x" * 1500, "é" * 1200],
)  # fmt: skip
def test_no_name_is_misread(name: str, tmp_path: Path) -> None:
    plan = Plan("00" * 32, "t", (), {name: LayerPlan("uint8", "int8")}, {name: Range(-1.0, 1.0, "minmax")})
    assert read(tmp_path, plans.dump(plan)) == plan


def test_a_model_of_digits_stays_a_word(tmp_path: Path) -> None:
    plan = Plan("1" * 64, "2024", (), {}, {})
    assert read(tmp_path, plans.dump(plan)) == plan


def test_a_person_can_read_and_edit_it(tmp_path: Path) -> None:
    text = plans.dump(SMALL)
    assert '  "conv1": {weight: int8, weight_range: mse, activation: uint8}\n' in text
    edited = read(tmp_path, text.replace('  "conv1": {weight: int8, weight_range: mse, activation: uint8}\n', ""))
    assert list(edited.layers) == ["sum"]
    bare = read(tmp_path, text.replace('"conv1"', "conv1").replace("{low: -1.5, high: 2.0,", "{high: 2, low: -1.5,"))
    assert bare == SMALL
    empty = read(tmp_path, f"schema_version: 1\nmodel: {'ab' * 32}\ntarget: t\nmethods:\nlayers:\nranges:\n")
    assert empty == Plan("ab" * 32, "t")


def test_a_pin_is_a_line(tmp_path: Path) -> None:
    text = plans.dump(SMALL)
    assert "\npins: {}\n" in text
    pinned = read(tmp_path, text.replace("pins: {}", "pins:\n  conv1: int4\n  sum: float"))
    assert pinned == dataclasses.replace(SMALL, pins={"conv1": "int4", "sum": "float"})
    assert '\npins:\n  "conv1": int4\n  "sum": float\nlayers:\n' in plans.dump(pinned)
    assert plans.loads(plans.dump(pinned)) == pinned


def test_the_knobs_of_its_engine_are_a_line_of_their_own(tmp_path: Path) -> None:
    plan = dataclasses.replace(SMALL, engine={"precision": "bf16", "spinning": False, "threads": 1})
    assert "\nengine: {precision: bf16, spinning: false, threads: 1}\n" in plans.dump(plan)
    assert "engine" not in plans.dump(SMALL)
    assert read(tmp_path, plans.dump(plan)) == plan
    assert plan.digest != SMALL.digest


def with_line(line: str) -> str:
    return plans.dump(SMALL) + line


HEAD = f"schema_version: 1\nmodel: {'ab' * 32}\ntarget: t\n"
BAD = {
    "": "holds no keys and values",
    "just words": "holds no keys and values",
    "- a\n- b\n": "holds no keys and values",
    "{": "is no plan",
    "a: b: c": "is no plan",
    "\x00": "is no plan",
    "!!python/object/apply:os.system [true]": "is no plan",
    "[" * 5000: "is no plan",
    "schema_version: 2\nmodel: m\ntarget: t\n": "has schema_version 2; this convkit reads 1",
    "model: m\ntarget: t\n": "has schema_version None",
    "schema_version: 1\ntarget: t\n": "lacks 'model'",
    "schema_version: 1\nmodel: m\n": "lacks 'target'",
    "schema_version: 1\nmodel: 12\ntarget: t\n": "'model' of the plan is 12",
    HEAD + "surprise: 1\n": "the plan has 'surprise'",
    HEAD + "methods: equalize\n": "'methods' of the plan is 'equalize'",
    HEAD + "methods: [1]\n": "'methods' of the plan is [1]",
    HEAD + "pins: [conv1]\n": "'pins' of the plan is ['conv1']",
    HEAD + "pins: {conv1: 8}\n": "the pin of 'conv1' is 8, not the name of a format",
    HEAD + "layers: [conv1]\n": "'layers' of the plan is ['conv1']",
    HEAD + "layers: {conv1: int8}\n": "layer 'conv1' is 'int8', not fields and values",
    HEAD + "layers: {conv1: }\n": "layer 'conv1' is None",
    HEAD + "layers: {conv1: {weight: int8}}\n": "layer 'conv1' lacks 'activation'",
    HEAD + "layers: {conv1: {activation: 8}}\n": "'activation' of layer 'conv1' is 8",
    HEAD + "layers: {conv1: {activation: uint8, wieght: int8}}\n": "layer 'conv1' has 'wieght'",
    HEAD + "engine: [spinning]\n": "'engine' of the plan is ['spinning']",
    HEAD + "engine: {spinning: }\n": "'spinning' of its engine is None",
    HEAD + "engine: {threads: 1.5}\n": "'threads' of its engine is 1.5",
    HEAD + "engine: {spinning: [1]}\n": "'spinning' of its engine is [1]",
    HEAD + "ranges: {x: {low: 0, high: 1}}\n": "the range of 'x' lacks 'calibrator'",
    HEAD + "ranges: {x: {low: a, high: 1, calibrator: m}}\n": "'low' of the range of 'x' is 'a', not a finite number",
    HEAD + "ranges: {x: {low: .nan, high: 1, calibrator: m}}\n": "is nan, not a finite number",
    HEAD + "ranges: {x: {low: 0, high: .inf, calibrator: m}}\n": "is inf, not a finite number",
    HEAD + "ranges: {x: {low: [0], high: 1, calibrator: m}}\n": "is [0], not a finite number",
    HEAD + "ranges: {x: {low: -1e39, high: 1, calibrator: m}}\n": "reaches -1e+39, which is more than float32 holds",
    HEAD + "layers: {}\nlayers: {conv1: {activation: uint8}}\n": "'layers' is there twice",
    HEAD + "pins: {conv1: int8, conv1: float}\n": "'conv1' is there twice",
    HEAD + "ranges: {x: {low: 2, high: 1, calibrator: m}}\n": "ends at 1.0, before it begins at 2.0",
    HEAD + f"ranges: {{x: {{low: 0, high: 1{'0' * 400}, calibrator: m}}}}\n": "not a finite number",
}


@pytest.mark.parametrize("text", BAD, ids=lambda text: text[-30:].encode("ascii", "replace").decode())
def test_what_is_no_plan_is_told_in_one_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConvkitError) as told:
        read(tmp_path, text)
    assert BAD[text] in str(told.value)
    assert "plan.yaml" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(ConvkitError, match="cannot read plan .*none.yaml: No such file"):
        plans.read(tmp_path / "none.yaml")
    with pytest.raises(ConvkitError, match="cannot read plan .*: Is a directory"):
        plans.read(tmp_path)
    (tmp_path / "image.yaml").write_bytes(bytes(range(256)))
    with pytest.raises(ConvkitError, match="is no plan"):
        plans.read(tmp_path / "image.yaml")


text = plans.dump(SMALL).encode()


@settings(max_examples=300)
@given(st.integers(0, len(text) - 1), st.binary(min_size=0, max_size=3))
def test_a_broken_plan_is_a_plan_or_the_users_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, replacement: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "broken.yaml"
    path.write_bytes(text[:at] + replacement + text[at + 1 :])
    with contextlib.suppress(ConvkitError):
        assert isinstance(plans.read(path), Plan)


def test_the_text_is_plain_yaml() -> None:
    found = yaml.safe_load(plans.dump(SMALL))
    assert found["schema_version"] == 1
    assert found["layers"]["sum"] == {"activation": "uint8"}
