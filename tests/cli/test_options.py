"""Words of the command line become values, or one clear line."""

import dataclasses
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit.cli import options
from convkit.compress.data import DataRef
from convkit.compress.errors import ConvkitError
from convkit.compress.preprocess import Preprocess
from tests.command_line import Convkit
from tests.compress.network import residual

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.:/]*", fullmatch=True)
SIZES = st.integers(1, 10**6)
SYMBOLS = st.from_regex(r"[A-Za-z_][A-Za-wyz0-9_]*", fullmatch=True).filter(lambda name: "x" not in name)


@given(NAMES, st.lists(SIZES | st.tuples(SYMBOLS, SIZES), min_size=1, max_size=5))
def test_a_shape_reads_back(name: str, dims: list[int | tuple[str, int]]) -> None:
    words = "x".join(str(dim) if isinstance(dim, int) else f"{dim[0]}={dim[1]}" for dim in dims)
    shape = tuple(dim if isinstance(dim, int) else dim[0] for dim in dims)
    sample = tuple(dim if isinstance(dim, int) else dim[1] for dim in dims)
    assert options.parse_shape(f"{name}:{words}") == (name, (shape, sample, ""))


def test_a_free_batch_is_sampled_by_one() -> None:
    assert options.parse_shape("x:Nx3x8x8") == ("x", (("N", 3, 8, 8), (1, 3, 8, 8), ""))


@pytest.mark.parametrize("text", ["", "x", "x:", ":1x3", "x:1x", "x:1x-3", "x:1x0", "x:1.5", "x:N=0", "x:1×3"])
def test_a_shape_that_is_none(text: str) -> None:
    with pytest.raises(ConvkitError, match="is not INPUT:SHAPE"):
        options.parse_shape(text)


@given(st.text())
def test_any_words_are_a_shape_or_one_error(text: str) -> None:
    try:
        _, (shape, sample, _) = options.parse_shape(text)
    except ConvkitError:
        return
    assert len(shape) == len(sample)
    assert min(sample) >= 1


def test_arguments_are_read_as_yaml() -> None:
    words = ["classes=10", "name=lite0", "kernel=[3, 3]", "bias=false", "empty="]
    expected = {"classes": 10, "name": "lite0", "kernel": [3, 3], "bias": False, "empty": None}
    assert options.assignments(words) == expected


@pytest.mark.parametrize("word", ["classes", "=3", "a b=3", "x=[1", "x=2020-13-45"])
def test_an_argument_that_is_none(word: str) -> None:
    with pytest.raises(ConvkitError):
        options.assignments([word])


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("mynet.py:Small", "give mynet:Small"),
        ("./mynet.py", "give mynet:FUNCTION"),
        ("models/unet.py:UNet.tiny", "give models.unet:UNet.tiny"),
        ("/home/me/unet.py:UNet", "run in /home/me and give unet:UNet"),
        ("../unet.py:UNet", "run in .. and give unet:UNet"),
    ],
)
def test_a_file_of_code_is_told_how_its_function_is_written(path: str, hint: str) -> None:
    with pytest.raises(ConvkitError) as refused:
        options.model_ref(path, None, {}, {})
    assert refused.value.hint == hint
    with pytest.raises(ConvkitError, match="names a file of code"):
        options.refine(DataRef(path), {})


def test_a_model_is_the_first_word_or_an_option(convkit: Convkit, tmp_path: Path) -> None:
    file = residual().save(tmp_path / "net.onnx", "scores")
    named = convkit("inspect", "-m", file)
    assert named.code == 0
    assert convkit("inspect", file) == convkit("inspect", "--", file) == named


def test_data_is_a_path_or_its_fields() -> None:
    data = options.DataSet()
    assert data.convert("photos/", None, None).path == "photos/"
    ref = data.convert("{path: photos/, preprocess: {mean: 127, std: 128}, limit: 8}", None, None)
    assert (ref.path, ref.limit, ref.preprocess) == ("photos/", 8, Preprocess(mean=(127,), std=(128,)))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{path: a, patern: b}", "data has no 'patern'; did you mean 'pattern'?"),
        ("{pattern: b}", "data has no 'path'"),
        ("{path: a, preprocess: {men: 1}}", "preprocess has no 'men'"),
        ("{path: 3}", "data.path is 3; give str"),
        ("{path: a", "is no mapping: "),
        ("{path: a, path: b}", "'path' is there twice"),
        ("{path: a, preprocess: 3}", "data.preprocess is 3; give dict"),
    ],
)
def test_data_with_wrong_fields(text: str, line: str) -> None:
    with pytest.raises(ConvkitError, match=r".") as caught:
        options.DataSet().convert(text, None, None)
    assert line in str(caught.value)


def test_every_field_of_data_has_its_type() -> None:
    assert list(options._DATA_TYPES) == [field.name for field in dataclasses.fields(DataRef)]


@pytest.mark.parametrize("place", [["-o", "out"], ["-oout"], ["-o=out"], ["--output", "out"], ["--output=out"]])
def test_a_command_is_recorded_without_its_place_and_whether_it_went_on(place: list[str]) -> None:
    """A manifest is the same wherever and in however many goes it was made."""
    with click.Context(click.Command("train")) as context:
        context.meta[options.COMMAND_LINE] = ["train", *place, "--resume", "net.onnx"]
        assert options.command_line() == ["convkit", "train", "net.onnx"]
