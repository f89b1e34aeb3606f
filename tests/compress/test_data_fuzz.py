"""Broken data files of every kind: loaded or refused in one line, never a traceback."""

import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from convkit.compress.data import DataRef, load
from convkit.compress.errors import ConvkitError
from convkit.compress.model import TensorSpec

X = (TensorSpec("x", ("N", 3, 8, 8), "float32", (1, 3, 8, 8)),)
ARRAY = np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8))


def _content(suffix: str) -> bytes:
    stream = io.BytesIO()
    if suffix == ".npy":
        np.save(stream, ARRAY)
    elif suffix == ".npz":
        np.savez_compressed(stream, x=ARRAY, labels=np.arange(3))
    else:
        PICTURE.save(stream, format=Image.registered_extensions()[suffix])
    return stream.getvalue()


# Where each format keeps its structure: the start, and for a zip archive the end.
_PLACES = st.one_of(st.integers(0, 200), st.integers(-400, -1), st.integers(0, 100_000))
_EDITS = st.lists(st.tuples(_PLACES, st.integers(0, 255)), min_size=1, max_size=6)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".png", ".jpg", ".webp", ".bmp", ".gif", ".tif", ".ppm"])
@settings(max_examples=60)
@given(edits=_EDITS, keep=st.one_of(st.none(), st.integers(0, 3000)))
def test_mutated_bytes(suffix: str, edits: list[tuple[int, int]], keep: int | None) -> None:
    content = bytearray(_content(suffix))
    for place, value in edits:
        content[place % len(content)] = value
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"d{suffix}"
        file.write_bytes(content[:keep])
        path = folder if suffix not in {".npy", ".npz"} else str(file)
        with contextlib.suppress(ConvkitError):
            assert len(load(DataRef(path), X)) >= 1


@settings(max_examples=100)
@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)), st.sampled_from([".json", ".csv"]))
def test_any_bytes_as_labels(content: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        PICTURE.save(Path(folder) / "a.png")
        (Path(folder) / f"l{suffix}").write_bytes(content)
        with contextlib.suppress(ConvkitError):
            load(DataRef(folder, labels=f"l{suffix}"), X)
