"""What stands beside an output: links to it, stages of this machine and of others, what was put aside."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from convkit.compress import record
from convkit.compress.errors import ConvkitError
from convkit.compress.training.checkpoint import Checkpoint

KILLED = """
import os, signal, sys
from convkit.compress import record
with record.output_folder(sys.argv[1]) as folder:
    (folder / "model").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def written(place: Path, text: str) -> None:
    with record.output_folder(place) as folder:
        (folder / "model").write_text(text)


def killed(place: Path) -> str:
    """The name of the stage that a process left which was killed."""
    before = set(place.parent.iterdir())
    subprocess.run([sys.executable, "-c", KILLED, place], check=False)
    (left,) = set(place.parent.iterdir()) - before
    return left.name


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture
def without_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system that cannot swap two folders in one step."""
    monkeypatch.setattr(record, "exchange", lambda *_: False)


@pytest.mark.usefixtures("without_exchange")
def test_an_output_that_was_aside_at_a_kill_comes_back(tmp_path: Path) -> None:
    written(tmp_path / "out", "good")
    (tmp_path / "out").rename(tmp_path / ".out.old")
    with pytest.raises(RuntimeError), record.output_folder(tmp_path / "out"):
        raise RuntimeError
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "model").read_text() == "good"


@pytest.mark.usefixtures("without_exchange")
def test_what_is_aside_of_an_output_that_stands_goes(tmp_path: Path) -> None:
    written(tmp_path / "out", "old")
    shutil.copytree(tmp_path / "out", tmp_path / ".out.old")
    written(tmp_path / "out", "new")
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "model").read_text() == "new"


def test_what_comes_back_is_replaced_only_where_convkit_wrote_it(tmp_path: Path) -> None:
    (tmp_path / ".out.old").mkdir()
    (tmp_path / ".out.old" / "thesis.tex").write_text("years of work")
    with pytest.raises(ConvkitError, match="'thesis.tex', which convkit did not write"):
        written(tmp_path / "out", "new")
    assert [file.read_text() for file in tmp_path.rglob("thesis.tex")] == ["years of work"]


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_what_it_points_to_is_written(tmp_path: Path, there: bool) -> None:
    """What a training keeps until then is there too: the link may be to a larger disk."""
    (tmp_path / "disk").mkdir()
    if there:
        written(tmp_path / "disk" / "out", "old")
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "out")
    written(tmp_path / "out", "new")
    assert (tmp_path / "out").is_symlink()
    assert not (tmp_path / "disk" / "out").is_symlink()
    assert (tmp_path / "disk" / "out" / "model").read_text() == "new"
    assert (names(tmp_path), names(tmp_path / "disk")) == (["disk", "out"], ["out"])
    assert Checkpoint(str(tmp_path / "out"), [], resume=False).folder.parent == tmp_path / "disk"


def test_a_stage_of_another_machine_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number of a process says nothing of those of another machine, which has the same folder."""
    left = killed(tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr(platform, "node", lambda: "else.where")
        written(tmp_path / "out", "good")
    assert names(tmp_path) == sorted([left, "out"])
    written(tmp_path / "out", "good")
    assert names(tmp_path) == ["out"]


def test_a_stage_of_a_longer_name_is_left_alone(tmp_path: Path) -> None:
    """Such as those of the steps train-0 and train-0.5."""
    left = killed(tmp_path / "train-0.5")
    written(tmp_path / "train-0", "good")
    assert names(tmp_path) == sorted([left, "train-0"])


def test_a_folder_that_another_process_takes_away_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looked into the same new folder, and was done first."""
    taken, mkdir = list[Path](), Path.mkdir

    def raced(folder: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        if folder.suffix == ".probe" and not taken:
            taken.append(folder)
            folder.parent.rmdir()
        mkdir(folder, mode, parents, exist_ok)

    monkeypatch.setattr(Path, "mkdir", raced)
    record.check_output(tmp_path / "a" / "out")
    assert taken
    assert names(tmp_path) == []
