"""Data: what loads, what is refused, and the laws of batches and splits."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convkit.compress.data import Data, DataRef, load, shapes
from convkit.compress.errors import ConvkitError
from convkit.compress.model import TensorSpec

X = TensorSpec("x", ("N", 3, 8, 8), "float32", (1, 3, 8, 8))


def _samples(count: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)


def _refused(path: object, *words: str, inputs: tuple[TensorSpec, ...] = (X,), **options: object) -> None:
    with pytest.raises(ConvkitError) as refusal:
        load(DataRef(str(path), **options), inputs)
    for word in words:
        assert word in str(refusal.value)


def test_npz_named_after_the_inputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=_samples(), labels=np.arange(6), beside=np.zeros(2))
    data = load(DataRef(str(tmp_path / "d.npz")), (X,))
    assert list(data.arrays) == ["x"]
    np.testing.assert_array_equal(data.arrays["x"], _samples())
    np.testing.assert_array_equal(data.labels, np.arange(6))


def test_npy_feeds_the_one_input(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", _samples())
    assert len(load(DataRef(str(tmp_path / "d.npy")), (X,))) == 6


def test_shapes_come_from_headers_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", x=_samples(), y=np.zeros((2, 5), np.float64))
    np.save(tmp_path / "one.npy", _samples())
    (tmp_path / "broken.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:90])
    assert shapes(DataRef(str(tmp_path / "two.npz"))) == {"x": _samples().shape, "y": (2, 5)}
    assert shapes(DataRef(str(tmp_path / "one.npy"))) == {"": _samples().shape}
    assert shapes(DataRef(str(tmp_path / "broken.npz"))) == shapes(DataRef(str(tmp_path))) == {}


def test_npy_does_not_feed_two_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", _samples())
    _refused(tmp_path / "d.npy", "no array for input 'x'", inputs=(X, TensorSpec("y", ("N", 1), "float32", (1, 1))))


def test_missing_input_says_what_there_is(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", image=_samples(), other=_samples())
    _refused(tmp_path / "d.npz", "'x'", "image", "other")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 3, 8, 9), np.float32), ("float32 [N, 3, 8, 8]", "float32 [4, 3, 8, 9]")),
        (np.zeros((3, 8, 8), np.float32), ("float32 [N, 3, 8, 8]", "[3, 8, 8]")),
        (_samples().astype(np.float64), ("float32 [N, 3, 8, 8]", "float64 [6, 3, 8, 8]", 'astype("float32")')),
        (np.zeros((4, 3, 8, 8), np.uint8), ("float32", "uint8")),
        (np.zeros((0, 3, 8, 8), np.float32), ("empty",)),
        (np.float32(3), ("empty",)),
        (np.where(np.arange(6)[:, None, None, None] == 4, np.nan, _samples()).astype(np.float32), ("NaN", "sample 4")),
        (np.where(np.arange(6)[:, None, None, None] == 2, np.inf, _samples()).astype(np.float32), ("Inf", "sample 2")),
        (np.ones((4, 3, 8, 8), np.float32), ("the same in all 4 samples",)),
        (np.repeat(_samples(1), 5, axis=0), ("the same in all 5 samples",)),
        (np.ones((1, 3, 8, 8), np.float32), ("constant",)),
        (np.array(["a", "b"]), ("float32", "str")),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, array: np.ndarray, words: tuple[str, ...]) -> None:
    np.savez(tmp_path / "d.npz", x=array)
    _refused(tmp_path / "d.npz", *words)


def test_one_constant_input_of_two_is_fine(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=_samples(), state=np.zeros((6, 4), np.float32))
    assert len(load(DataRef(str(tmp_path / "d.npz")), (X, TensorSpec("state", ("N", 4), "float32", (1, 4))))) == 6


def test_one_symbol_is_one_size(tmp_path: Path) -> None:
    inputs = tuple(TensorSpec(name, ("N", "width"), "float32", (1, 4)) for name in "xy")
    np.savez(tmp_path / "d.npz", x=np.eye(4, dtype=np.float32), y=np.eye(4, 5, dtype=np.float32))
    _refused(tmp_path / "d.npz", "'width'", "4", "5", inputs=inputs)


def test_inputs_of_unlike_first_sizes_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=_samples(), y=_samples(seed=1))
    path, x, y = tmp_path / "d.npz", *(TensorSpec(name, (4, 3, 8, 8), "float32", (4, 3, 8, 8)) for name in "xy")
    other = TensorSpec("y", (2, 3, 8, 8), "float32", (2, 3, 8, 8))
    _refused(path, "unlike first sizes", "x 4, y 2", inputs=(x, other))
    assert len(load(DataRef(str(path)), (x, y))) == len(load(DataRef(str(path)), (X, other))) == 6


def test_unequal_numbers_of_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=_samples(), labels=np.arange(5))
    _refused(tmp_path / "d.npz", "x 6", "labels 5")


@pytest.mark.parametrize("labels", [np.array([0, 1, -1, 2, 3, 4]), np.full(6, np.nan), np.array(list("abcdef"))])
def test_labels_that_are_none(tmp_path: Path, labels: np.ndarray) -> None:
    np.savez(tmp_path / "d.npz", x=_samples(), labels=labels)
    _refused(tmp_path / "d.npz", "label")


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    _refused(tmp_path / "d.npy", "never unpickles")
    (tmp_path / "p.npy").write_bytes(b"\x80\x04K\x01.")
    _refused(tmp_path / "p.npy", "never unpickles")


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
@pytest.mark.parametrize("keep", [0, 1, 40, 300, 2000])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, keep: int) -> None:
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    if suffix == ".npz":
        np.savez_compressed(whole, x=_samples())
    else:
        np.save(whole, _samples())
    cut.write_bytes(whole.read_bytes()[:keep])
    _refused(cut, "cut")


def test_a_header_that_promises_too_much(tmp_path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (9000000000000, 3, 8, 8), }\n"
    (tmp_path / "d.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    _refused(tmp_path / "d.npy", "d.npy")


def test_a_header_that_ends_early(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", _samples())
    content = bytearray((tmp_path / "d.npy").read_bytes())
    content[8] = 1  # the header's length
    (tmp_path / "d.npy").write_bytes(content)
    _refused(tmp_path / "d.npy", "no readable .npy")


def test_an_archive_larger_than_the_memory(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\x93NUMPY")
    # The central directory is what is asked first: let it promise 4 GiB - 1 for each of many entries.
    entry = archive.infolist()[0]
    entry.file_size = 2**32 - 2
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as forged:
        forged.writestr("x.npy", b"\x93NUMPY")
        forged.filelist = [entry] * 200
        forged.NameToInfo = {"x.npy": entry}
    _refused(tmp_path / "d.npz", "GiB")


def test_what_is_not_there(tmp_path: Path) -> None:
    _refused(tmp_path / "none", "does not exist")
    _refused(tmp_path / "none.npz", "no data file")
    (tmp_path / "data.bin").write_bytes(b"12")
    _refused(tmp_path / "data.bin", "no data that convkit reads")
    _refused("pkg://no_such_package/data", "not installed")
    _refused("no_such_module:data", "no_such_module")
    _refused("json:no_such_function", "no_such_function")


def test_the_users_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = "import numpy as np\ndef make(count, bad=False):\n"
    module += "    x = np.random.default_rng(0).random((count, 3, 8, 8), dtype=np.float32)\n"
    module += "    return [x] if bad else ({'x': x}, np.arange(count))\n"
    (tmp_path / "own_data_for_test.py").write_text(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    data = load(DataRef("own_data_for_test:make", args={"count": 5}), (X,))
    assert len(data) == 5
    assert data.labels is not None
    _refused("own_data_for_test:make", "returned list", args={"count": 5, "bad": True})


def test_limit_spreads(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=_samples(10), labels=np.arange(10))
    labels = load(DataRef(str(tmp_path / "d.npz"), limit=5), (X,)).labels
    assert labels is not None
    assert labels.tolist() == [0, 2, 4, 6, 8]
    _refused(tmp_path / "d.npz", "limit", limit=0)


def _data(count: int) -> Data:
    return Data({"x": np.arange(count, dtype=np.float32)[:, None]}, np.arange(count), "digest")


@given(st.integers(2, 60), st.floats(0, 1), st.integers(0, 5))
def test_a_split_parts_the_samples(count: int, fraction: float, seed: int) -> None:
    one, other = _data(count).split(fraction, seed)
    assert len(one) >= 1
    assert len(other) >= 1
    assert sorted([*one.arrays["x"][:, 0], *other.arrays["x"][:, 0]]) == list(range(count))
    again = _data(count).split(fraction, seed)
    np.testing.assert_array_equal(again[1].arrays["x"], other.arrays["x"])
    assert (again[0].digest, again[1].digest) == (one.digest, other.digest)
    assert one.digest != other.digest


def test_one_sample_cannot_be_split() -> None:
    with pytest.raises(ConvkitError, match="at least 2"):
        _data(1).split(0.5)


@given(st.integers(1, 40), st.integers(1, 50))
def test_batches_hold_everything_once_in_order(count: int, size: int) -> None:
    batches = list(_data(count).batches(size))
    assert np.concatenate([b.arrays["x"] for b in batches])[:, 0].tolist() == list(range(count))
    assert all(b.labels is not None and b.labels.tolist() == b.arrays["x"][:, 0].tolist() for b in batches)


def test_one_number_for_all_samples_is_in_every_batch() -> None:
    data = Data({"scale": np.full((), 3, np.float32), "x": _samples(5)}, None, "")
    assert len(data) == 5
    assert [(len(part), float(part.arrays["scale"])) for part in data.batches(2)] == [(2, 3.0), (2, 3.0), (1, 3.0)]
