"""Targets are data: every one in the folder is whole, every broken one is told in one line."""

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from convkit.compress import format as formats
from convkit.compress import ops, parts, promotion
from convkit.compress import target as targets
from convkit.compress.errors import ConvkitError
from convkit.compress.format import Integer
from convkit.compress.method import Method
from convkit.compress.option import Option
from convkit.compress.target import Target

TARGETS = parts.names("recipes/targets", ".yaml")
every_target = pytest.mark.parametrize("name", TARGETS)


@every_target
def test_a_target_is_whole(name: str) -> None:
    target = targets.load(name)
    assert target.name == name
    assert target.engine in parts.names("runtimes")
    assert target.stand_in in ("", *parts.names("runtimes"))
    assert target.engine in parts.names("export/engines")
    assert target.about
    assert target.opset >= 18
    assert formats.load(target.weight).symmetric
    vocabulary = set(ops.names())
    for operator, rule in target.operators.items():
        assert {operator, *rule.fuses} <= vocabulary
        assert not (rule.same_range and rule.weight)
    assert any(rule.weight for rule in target.operators.values())


@every_target
def test_its_placements_speak_of_what_there_is(name: str) -> None:
    target = targets.load(name)
    names = [placement["name"] for placement in target.placements]
    assert len({*names}) == len(names) > 0
    for placement in target.placements:
        assert {*placement.get("float", ())} <= target.operators.keys()
        for method in placement.get("methods", ()):
            part: Method = parts.load("compress/methods", method)
            assert part.before
            assert part.exact


def valid() -> dict[str, object]:
    text: dict[str, object] = yaml.safe_load(parts.path("recipes/targets", "onnxruntime-cpu").read_text())
    return text


def load(folder: Path, text: object) -> Target:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(text))
    return targets.load(str(path))


def test_a_target_of_ones_own(tmp_path: Path) -> None:
    mine = load(tmp_path, valid() | {"operators": {"Conv": {"weight": True}, "Relu": None}, "placements": []})
    assert mine.name == "mine"
    assert list(mine.operators) == ["Conv", "Relu"]
    assert mine.placements == ()


BAD = {
    "engine missing": ({"engine": None}, "'engine' of it is None"),
    "unknown field": ({"speed": "high"}, "has 'speed'"),
    "opset a word": ({"opset": "21"}, "'opset' of it is '21'"),
    "opset a truth": ({"opset": True}, "'opset' of it is True"),
    "unknown format": ({"activation": "int9"}, "no format is called 'int9'"),
    "operators a list": ({"operators": ["Conv"]}, "'operators' of it is ['Conv']"),
    "rule a word": ({"operators": {"Conv": "yes"}}, "the rule of Conv is 'yes'"),
    "rule with a typo": ({"operators": {"Conv": {"fuse": ["Relu"]}}}, "the rule of Conv has 'fuse'"),
    "rule with a wrong type": ({"operators": {"Conv": {"fuses": "Relu"}}}, "'fuses' of the rule of Conv is 'Relu'"),
    "output neither": ({"operators": {"Conv": {"output": "int8"}}}, "'output' is 'int8', which is none of quantized"),
    "placement without a name": ({"placements": [{"ends": ["first"]}]}, "a placement lacks 'name'"),
    "placement a word": ({"placements": ["everything"]}, "a placement is 'everything'"),
    "placement of a middle": ({"placements": [{"name": "m", "ends": ["middle"]}]}, "'ends' is 'middle'"),
    "shapes of neither": ({"shapes": "floats"}, "'shapes' is 'floats'"),
    "biases of neither": ({"biases": "beside"}, "'biases' is 'beside'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_target_is_told_in_one_line(case: str, tmp_path: Path) -> None:
    changes, wanted = BAD[case]
    with pytest.raises(ConvkitError) as told:
        load(tmp_path, valid() | changes)
    assert wanted in str(told.value)
    assert "mine.yaml is no target" in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("field", ["engine", "about", "opset", "activation", "weight", "operators"])
def test_a_missing_field_is_named(field: str, tmp_path: Path) -> None:
    text = valid()
    del text[field]
    with pytest.raises(ConvkitError, match=f"lacks '{field}'"):
        load(tmp_path, text)


def test_a_name_that_is_none() -> None:
    with pytest.raises(ConvkitError, match="no target is called 'onnxruntime-cpus'; did you mean 'onnxruntime-cpu'"):
        targets.load("onnxruntime-cpus")
    with pytest.raises(ConvkitError, match="cannot read target there/is/none.yaml: No such file"):
        targets.load("there/is/none.yaml")


source = parts.path("recipes/targets", "onnxruntime-cpu").read_bytes()


@settings(max_examples=60)
@given(st.integers(0, len(source) - 1), st.binary(min_size=0, max_size=3))
def test_a_broken_target_is_a_target_or_the_users_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, replacement: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "broken.yaml"
    path.write_bytes(source[:at] + replacement + source[at + 1 :])
    with contextlib.suppress(ConvkitError):
        assert isinstance(targets.load(str(path)), Target)


@pytest.mark.parametrize("name", ["onnxruntime-cpu", "openvino-cpu"])
def test_weights_have_fewer_bits_where_sums_would_overflow(name: str) -> None:
    target = targets.load(name)
    assert target.on(["avx2"]).weight == target.on(["avx2", "avx512f"]).weight == "int7"
    for flags in ([], ["avx2", "avx512f", "avx512_vnni"], ["avx2", "avx_vnni"], ["asimd"]):
        assert target.on(flags) is target
    low = promotion.promote(Option("int8", "uint8"), target.on(["avx2"]))
    assert (low.option, low.kernel) == (Option("int7", "uint8"), "int8")
    assert "Weights in int8 run in int7 on this processor" in low.note
    assert promotion.promote(Option("int4", "uint8"), target.on(["avx2"])).option.weight == "int4"


def test_no_two_products_of_the_narrower_weights_overflow() -> None:
    """What the kernels add in 16 bits (oneDNN, Nuances of int8 computations)."""
    narrow, activation = (formats.load(name) for name in ("int7", "uint8"))
    assert isinstance(narrow, Integer)
    assert isinstance(activation, Integer)
    assert 2 * narrow.low * activation.high >= -(2**15)
    assert 2 * narrow.high * activation.high < 2**15


def test_a_target_may_be_like_another(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("like: openvino-cpu\nabout: a slow one\n")
    known = targets.load("openvino-cpu")
    assert targets.load(str(tmp_path / "mine.yaml")) == replace(known, name="mine", about="a slow one")
    assert targets.load("trt-rtx").formats == targets.load("trt").formats


def test_what_a_target_is_like_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("like: openvino-gpu\n")
    with pytest.raises(ConvkitError, match="no target is called 'openvino-gpu'"):
        targets.load(str(tmp_path / "mine.yaml"))
