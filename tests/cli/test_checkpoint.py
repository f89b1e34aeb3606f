"""A checkpoint keeps what is finished for the search that it is of, and for no other."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from convkit.cli import checkpoint
from convkit.cli.checkpoint import Checkpoint
from convkit.compress.errors import ConvkitError

BEGINS = """
import sys
from convkit.cli import checkpoint
kept = checkpoint.beside("out", "a", resume=False)
kept.keep("losses", 1)
print("begun", flush=True)
sys.stdin.read()
"""
"""A search that begins, and lives until it is told enough."""


def test_what_is_kept_is_read_by_the_same_search_that_resumes(tmp_path: Path) -> None:
    first = checkpoint.beside(str(tmp_path / "out"), ["a", 1], resume=False)
    first.keep("losses", {"conv": 0.1 + 0.2})
    first.add("rounds", {"a": 1})
    first.add("rounds", {"b": 2})
    (tmp_path / "net.onnx").write_bytes(b"net")
    first.keep_file("plan.onnx", tmp_path / "net.onnx")
    again = checkpoint.beside(str(tmp_path / "out"), ["a", 1], resume=True)
    assert again.value("losses") == {"conv": 0.1 + 0.2}
    assert again.value("rounds") == {"a": 1, "b": 2}
    found = again.file("plan.onnx")
    assert found is not None
    assert found.read_bytes() == b"net"


def test_another_search_and_one_that_does_not_resume_begin_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And say so: what is thrown away may have taken hours."""
    told = {(("b",), True): "had other options, data or versions", (("a",), False): "--resume goes on from it"}
    for (key, resume), words in told.items():
        checkpoint.beside(str(tmp_path / "out"), ["a"], resume=False).keep("losses", 1)
        capsys.readouterr()
        assert checkpoint.beside(str(tmp_path / "out"), list(key), resume=resume).value("losses") is None
        assert words in " ".join(capsys.readouterr().err.split())
    checkpoint.beside(str(tmp_path / "elsewhere"), "a", resume=False)
    assert capsys.readouterr().err == ""


def test_it_is_gone_when_the_output_stands(tmp_path: Path) -> None:
    kept = checkpoint.beside(str(tmp_path / "out"), "a", resume=False)
    assert list(tmp_path.iterdir()) == [kept.folder]
    kept.done()
    assert list(tmp_path.iterdir()) == []


def test_one_whose_removal_was_killed_is_of_no_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = checkpoint.beside(str(tmp_path / "out"), "a", resume=False)
    kept.keep("remedies done", value=True)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_words, **_options: None)
        kept.done()
    assert checkpoint.beside(str(tmp_path / "out"), "a", resume=True).value("remedies done") is None


def test_what_is_torn_counts_as_nothing(tmp_path: Path) -> None:
    kept = checkpoint.beside(str(tmp_path / "out"), "a", resume=False)
    assert kept.folder is not None
    (kept.folder / "losses.json").write_text('{"conv": ')
    assert kept.value("losses") is None


def test_a_value_is_made_once() -> None:
    made: list[int] = []

    def make() -> int:
        made.append(1)
        return 7

    assert Checkpoint().kept("n", make, str, int) == 7
    assert Checkpoint().kept("n", make, str, int) == 7
    assert len(made) == 2


def test_a_kept_value_is_not_made_again(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path)
    assert kept.kept("n", lambda: 7, str, int) == 7
    assert kept.kept("n", lambda: 8, str, int) == 7


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that searches for "out", and has begun."""
    places = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(
        [sys.executable, "-c", BEGINS], cwd=tmp_path, env=os.environ | places, text=True, **pipes
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield process
        process.kill()


@pytest.mark.parametrize("resume", [False, True])
def test_a_place_is_that_of_one_search_at_a_time(
    other: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConvkitError, match="another search writes to out"):
        checkpoint.beside("out", "a", resume=resume)
    assert Checkpoint(tmp_path / ".out.search").value("losses") == 1, "of the other, whose it still is"
    checkpoint.beside("elsewhere", "a", resume=resume)
    other.kill()
    other.wait()
    assert checkpoint.beside("out", "a", resume=resume).value("losses") == (1 if resume else None)


def test_it_begins_with_what_was_found_elsewhere(tmp_path: Path) -> None:
    """A mapping that was kept in part is whole then, in the order of what was found, before it is said to be done."""
    kept = checkpoint.beside(str(tmp_path / "out"), "a", resume=False)
    kept.add("remedies", {"first": 1})
    kept.add("scores", {"own": 3})
    kept.begin({"remedies": {"zeroth": 0, "first": 1}, "remedies done": True, "scores": {"other": 4}})
    assert list(kept.value("remedies").items()) == [("zeroth", 0), ("first", 1)]
    assert kept.value("remedies done") is True
    assert kept.value("scores") == {"own": 3, "other": 4}
