"""Digests name contents; what is written is the old or the new, never a part."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from convkit.compress import record
from convkit.compress.errors import ConvkitError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.binary())
def test_a_file_has_the_digest_of_its_bytes(data: bytes) -> None:
    import hashlib

    assert record.digest_bytes(data) == hashlib.sha256(data).hexdigest()


def test_a_large_file_is_digested_in_full(tmp_path: Path) -> None:
    data = os.urandom((1 << 20) + 17)
    (tmp_path / "file").write_bytes(data)
    assert record.digest_file(tmp_path / "file") == record.digest_bytes(data)


@given(st.dictionaries(st.text(), JSON, max_size=6))
def test_the_order_of_keys_does_not_change_a_digest(value: dict[str, object]) -> None:
    assert record.digest_json(value) == record.digest_json(dict(reversed(value.items())))


@given(arrays.arrays(st.sampled_from([np.float32, np.int8, np.uint8]), arrays.array_shapes(max_side=4)))
def test_arrays_that_differ_anywhere_have_other_digests(array: np.ndarray) -> None:
    one = record.digest_arrays({"x": array, "y": array})
    assert one == record.digest_arrays({"y": array.copy(), "x": array})
    changed = array.copy()
    changed.view(np.uint8).flat[-1] ^= 1
    others = [{"x": array}, {"x": array, "z": array}, {"x": array[None], "y": array}]
    assert one not in {record.digest_arrays(other) for other in others}
    assert one != record.digest_arrays({"x": changed, "y": array})


def test_types_without_a_buffer_have_a_digest() -> None:
    import ml_dtypes

    values = np.array([1, 2], ml_dtypes.bfloat16)
    assert record.digest_arrays({"x": values}) != record.digest_arrays({"x": values.astype(np.float16)})


@given(JSON)
def test_json_reads_back(value: object) -> None:
    assert json.loads(record.to_json(value)) == value


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    for text in ("old", "new"):
        record.write_text(tmp_path / "file.txt", text)
    assert (tmp_path / "file.txt").read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


def test_an_output_folder_is_replaced_whole(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with record.output_folder(tmp_path / "out") as folder:
            (folder / name).write_text(name)
            assert not (tmp_path / "out" / "new").exists()
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["manifest.json", "new"]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["files"] == {"new": record.digest_bytes(b"new")}
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_the_old_output(tmp_path: Path) -> None:
    with record.output_folder(tmp_path / "out") as folder:
        (folder / "model").write_text("good")
    with pytest.raises(RuntimeError), record.output_folder(tmp_path / "out") as folder:
        (folder / "model").write_text("half")
        raise RuntimeError
    assert (tmp_path / "out" / "model").read_text() == "good"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_an_output_folder_with_the_users_files_is_refused(tmp_path: Path) -> None:
    with record.output_folder(tmp_path / "out") as folder:
        (folder / "model").write_text("mine")
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with (
        pytest.raises(ConvkitError, match="'thesis.tex', which convkit did not write"),
        record.output_folder(tmp_path / "out"),
    ):
        pass
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"


def test_without_an_exchange_of_folders_the_swap_still_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "exchange", lambda *_: False)
    test_an_output_folder_is_replaced_whole(tmp_path)


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_place_that_is_no_folder_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConvkitError, match="is a file"), record.output_folder(tmp_path / place):
        pass


LIMITED = """
import resource, sys
from convkit.compress import record
from convkit.compress.errors import ConvkitError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with record.output_folder(sys.argv[1]) as folder:
        (folder / "model").write_bytes(bytes(1 << 20))
except ConvkitError as error:
    print(error)
try:
    record.write_bytes(sys.argv[1] + "/model", bytes(1 << 20))
except ConvkitError as error:
    print(error)
"""


def test_a_file_that_cannot_be_written_in_full_leaves_the_old_one(tmp_path: Path) -> None:
    with record.output_folder(tmp_path / "out") as folder:
        (folder / "model").write_text("good")
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path / "out"], capture_output=True, text=True, check=True)
    assert done.stdout.count("the file is larger than the system allows") == 2
    assert (tmp_path / "out" / "model").read_text() == "good"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("place", ["/sys/convkit", "/proc/convkit"])
def test_a_read_only_place_is_refused(place: str) -> None:
    with pytest.raises(ConvkitError, match=f"cannot write {place}: "):
        record.check_output(place)


def test_a_check_leaves_nothing_and_names_the_first_file_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record.check_output(tmp_path / "a" / "b" / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for place in ("deep/er/z", "deep/a"):
        (tmp_path / place).write_text("mine")
    looked = []
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda top: (looked.append(found[0]) or found for found in walk(top)))
    with pytest.raises(ConvkitError, match="holds 'a', which convkit did not write"):
        record.check_output(tmp_path / "deep")
    assert looked == [str(tmp_path / "deep")]


def test_a_new_place_gets_the_folders_that_it_is_in(tmp_path: Path) -> None:
    with record.output_folder(tmp_path / "a" / "b" / "out") as folder:
        (folder / "model").write_text("good")
    assert (tmp_path / "a" / "b" / "out" / "model").read_text() == "good"


KILLED = """
import os, signal, sys
from convkit.compress import record
with record.output_folder(sys.argv[1]) as folder:
    (folder / "model").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, tmp_path / "out"], check=False)
    assert [file.suffix for file in tmp_path.iterdir()] == [".part"]
    with record.output_folder(tmp_path / "out") as folder:
        (folder / "model").write_text("good")
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_a_manifest_is_the_same_twice_and_names_no_place() -> None:
    facts = {"command": ["convkit", "list"], "digests": {"model": "0" * 64}, "target": "onnxruntime-cpu", "seed": 3}
    one = record.to_json(record.manifest(**facts))
    assert one == record.to_json(record.manifest(**facts))
    assert json.loads(one)["versions"].keys() >= {"convkit", "python", "torch", "onnx", "onnxruntime", "numpy"}
    assert str(Path.cwd()) not in one
