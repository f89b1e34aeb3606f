"""What a training keeps: its own last epoch, whatever was killed when, and never another training's."""

import errno
import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from convkit.compress import record
from convkit.compress.errors import ConvkitError
from convkit.compress.training.checkpoint import Checkpoint


def kept(folder: Path, key: str = "one", *, resume: bool = True) -> Checkpoint:
    return Checkpoint(str(folder / "out"), [key], resume=resume)


def found(checkpoint: Checkpoint) -> tuple[float, int]:
    known = checkpoint.load()
    assert known is not None
    return float(known[0]["w"]), known[1]["epoch"]


def test_the_last_epoch_is_there_and_gone_where_the_output_stands(tmp_path: Path) -> None:
    own = kept(tmp_path)
    assert own.load() is None
    for epoch in (1, 2):
        own.keep(epoch, {"w": torch.tensor(epoch / 2)}, {"epoch": epoch})
    assert found(kept(tmp_path)) == (1.0, 2)
    assert len(list(own.folder.glob("*.safetensors"))) == 1
    assert kept(tmp_path, resume=False).load() is None
    own.done()
    assert not own.folder.exists()
    own.done()


def test_tensors_that_are_gone_are_nothing_kept(tmp_path: Path) -> None:
    own = kept(tmp_path)
    own.keep(1, {"w": torch.tensor(1.0)}, {"epoch": 1})
    next(own.folder.glob("*.safetensors")).unlink()
    assert kept(tmp_path).load() is None


LIVING = """
import sys, torch
from convkit.compress.training.checkpoint import Checkpoint
Checkpoint(sys.argv[1], ["one"], resume=True).keep(1, {"w": torch.tensor(1.0)}, {"epoch": 1})
print("kept", flush=True)
sys.stdin.read()
"""


def test_a_second_training_is_refused_while_the_first_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other ranks of one crew, which read what its first keeps, are no second training."""
    first = subprocess.Popen(
        [sys.executable, "-c", LIVING, str(tmp_path / "out")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"kept\n"
        with pytest.raises(ConvkitError, match="another training writes to .*out"):
            kept(tmp_path).load()
        second = kept(tmp_path, "another", resume=False)
        for _ in range(2):
            with pytest.raises(ConvkitError, match="another training writes to .*out"):
                second.keep(1, {"w": torch.tensor(2.0)}, {"epoch": 1})
        with monkeypatch.context() as patched:
            patched.setenv("RANK", "1")
            assert found(kept(tmp_path)) == (1.0, 1)
        first.kill()
    assert found(kept(tmp_path)) == (1.0, 1)


def test_a_file_system_without_locks_keeps_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    kept(tmp_path).keep(1, {"w": torch.tensor(1.0)}, {"epoch": 1})
    assert found(kept(tmp_path)) == (1.0, 1)


def test_a_removal_that_is_killed_leaves_nothing_to_go_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = kept(tmp_path)
    own.keep(1, {"w": torch.tensor(1.0)}, {"epoch": 1})

    def killed(folder: Path, **_: object) -> None:
        next(Path(folder).glob("*.safetensors")).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            own.done()
    assert own.folder.exists()
    assert kept(tmp_path).load() is None


def test_tensors_of_another_training_do_not_stand_in_for_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one, killed between its tensors of the same epoch and what says that they are there."""
    kept(tmp_path).keep(1, {"w": torch.tensor(1.0)}, {"epoch": 1})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(record, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            kept(tmp_path, "another", resume=False).keep(1, {"w": torch.tensor(2.0)}, {"epoch": 1})
    assert found(kept(tmp_path)) == (1.0, 1)
    with pytest.raises(ConvkitError, match="is of another training"):
        kept(tmp_path, "another").load()
