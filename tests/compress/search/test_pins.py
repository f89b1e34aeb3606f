"""Pins: what a person decided for a layer, among what it can run in."""

import pytest

from convkit.compress.errors import ConvkitError
from convkit.compress.option import FLOAT, Option
from convkit.compress.search import pins

OPTIONS = {
    "conv1": (FLOAT, Option("int8", "uint8"), Option("int4", "uint8")),
    "add2": (FLOAT, Option("uint8", "uint8")),
}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("float", FLOAT),
        ("fp32", FLOAT),
        ("int4", Option("int4", "uint8")),
        ("int8/uint8", Option("int8", "uint8")),
    ],
)
def test_a_format_or_both_or_float(text: str, meant: Option) -> None:
    assert pins.chosen({"conv1": text}, OPTIONS) == {"conv1": meant}


def test_an_operator_is_pinned_by_its_activations() -> None:
    assert pins.chosen({"add2": "uint8"}, OPTIONS) == {"add2": Option("uint8", "uint8")}


def test_the_formats_that_pins_ask_for() -> None:
    assert pins.formats({"a": "int4", "b": "float", "c": "int4/uint8", "d": "int2"}) == ("int4", "int2")


def test_a_layer_that_runs_in_float_anyway_may_be_pinned_to_it() -> None:
    assert pins.chosen({"softmax": "float"}, OPTIONS, {"softmax"}) == {}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"conv11": "int8"}, "there is no layer 'conv11' to pin; did you mean 'conv1'?"),
        ({"zzz": "int8"}, "there is no layer 'zzz' to pin; `convkit inspect` lists the layers"),
        ({"conv1": "int3"}, "pinned to int3, which it cannot run in; it can run in float, int8/uint8, int4/uint8"),
        ({"softmax": "int8"}, "layer 'softmax' is pinned to int8, but runs in float alone here"),
    ],
)
def test_what_cannot_be_pinned_is_told(wanted: dict[str, str], message: str) -> None:
    with pytest.raises(ConvkitError) as told:
        pins.chosen(wanted, OPTIONS, {"softmax"})
    assert message in str(told.value)


@pytest.mark.parametrize("text", ["int8", "int8/uint8"])
def test_what_a_processor_would_overflow_is_pinned_to_what_it_is_there(text: str) -> None:
    here = {"conv1": (FLOAT, Option("int7", "uint8"), Option("int4", "uint8"))}
    assert pins.chosen({"conv1": text}, here, narrower={"int8": "int7"}) == {"conv1": Option("int7", "uint8")}
    assert pins.chosen({"conv1": text}, OPTIONS, narrower={"int8": "int7"}) == {"conv1": Option("int8", "uint8")}
    assert pins.formats({"conv1": text, "b": "int4"}, {"int8": "int7"}) == ("int7", "int4")
    with pytest.raises(ConvkitError, match="pinned to int8"):
        pins.chosen({"add2": text}, OPTIONS, narrower={"int8": "int7"})
