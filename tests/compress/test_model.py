"""The Model's own words: shapes as users write them, and sources by what they claim."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import fx

from convkit.compress.errors import ConvkitError
from convkit.compress.model import DTYPES, Dim, Model, ModelRef, TensorSpec, load, parse_shape

SIZES = st.integers(1, 10**6)
SYMBOLS = st.from_regex(r"[A-Za-wyz_][A-Za-wyz0-9_]*", fullmatch=True)


@given(st.lists(SIZES | st.tuples(SYMBOLS, SIZES), min_size=1, max_size=5))
def test_a_shape_reads_back(dims: list[int | tuple[str, int]]) -> None:
    words = "x".join(str(dim) if isinstance(dim, int) else f"{dim[0]}={dim[1]}" for dim in dims)
    shape = tuple(dim if isinstance(dim, int) else dim[0] for dim in dims)
    sample = tuple(dim if isinstance(dim, int) else dim[1] for dim in dims)
    assert parse_shape(f"input:0:{words}") == ("input:0", (shape, sample, ""))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["tokens", "input:0", "scope:x", "int64"])
def test_an_element_type_stands_before_the_sizes(name: str, dtype: str) -> None:
    assert parse_shape(f"{name}:{dtype}:Nx16") == (name, (("N", 16), (1, 16), dtype))
    assert parse_shape(f"{name}:Nx16") == (name, (("N", 16), (1, 16), ""))


@pytest.mark.parametrize("dtype", ["int63", "int", "long", "float", "bfloat16", "uint64", "double"])
def test_an_element_type_there_is_not(dtype: str) -> None:
    with pytest.raises(ConvkitError) as refused:
        parse_shape(f"tokens:{dtype}:1x16")
    assert str(refused.value) == (
        f"shape 'tokens:{dtype}:1x16': there is no element type {dtype!r}; there is: {', '.join(DTYPES)}"
    )


def test_only_a_free_batch_has_a_sample_of_its_own() -> None:
    assert parse_shape("x:Nx3x8x8") == ("x", (("N", 3, 8, 8), (1, 3, 8, 8), ""))
    with pytest.raises(ConvkitError, match="the free size H needs a sample"):
        parse_shape("x:Nx3xHx8")


@pytest.mark.parametrize(
    "text", ["", "x", "x:", ":1x3", "x:1x-3", "x:1x0", "x:1.5", "x:N=0", "x:1×3", "x:" + "9" * 5000]
)
def test_a_shape_that_is_none(text: str) -> None:
    with pytest.raises(ConvkitError, match="is not INPUT:SHAPE"):
        parse_shape(text)


@pytest.mark.parametrize("path", ["net", "net.tflite", "", "a.b:", "net.onnx.gz"])
def test_a_path_that_no_source_claims(path: str) -> None:
    with pytest.raises(ConvkitError, match="is no model that convkit loads"):
        load(ModelRef(path))


@pytest.mark.parametrize(
    ("shapes", "batch"),
    [
        ([("N", 3)], None),
        ([(4, 3)], 4),
        ([("N", 3), (4, 1)], 4),
        ([("N", 3), ()], None),
        ([(), (2, 3)], 2),
        ([()], 1),
    ],
)
def test_a_batch_is_fixed_by_any_input_that_has_samples(shapes: list[tuple[Dim, ...]], batch: int | None) -> None:
    inputs = tuple(TensorSpec(f"x{at}", shape, "float32") for at, shape in enumerate(shapes))
    assert Model(fx.GraphModule({}, fx.Graph()), inputs, (), "net", "").batch == batch
