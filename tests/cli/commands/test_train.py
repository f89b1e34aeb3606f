"""`convkit train`: weights that every command takes, and what is wrong with what it is given."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from convkit.compress import record
from convkit.compress.training import checkpoint
from tests.command_line import Convkit, Result

NET = """from torch import nn

def build(channels=8):
    return nn.Sequential(nn.Conv1d(1, channels, 5, padding=2), nn.BatchNorm1d(channels), nn.ReLU(),
                         nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(channels, 2))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slow and fast waves in noise, and a network for them."""
    (tmp_path / "trainee.py").write_text(NET)
    draw = np.random.default_rng(0)
    for name, count in (("train", 256), ("val", 64)):
        labels = draw.integers(2, size=count)
        waves = np.sin(np.arange(32) * np.where(labels, 1.6, 0.4)[:, None] + draw.uniform(0, 6, (count, 1)))
        waves += draw.normal(0, 0.3, waves.shape)
        np.savez(tmp_path / f"{name}.npz", input=waves[:, None].astype(np.float32), labels=labels)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(convkit: Convkit, *words: str, out: str = "out") -> Result:
    return convkit("train", "trainee:build", "--shape", "input:Nx1x32", "--data", "train.npz", *words, "-o", out)


def test_weights_are_trained_scored_and_taken_by_other_commands(convkit: Convkit, folder: Path) -> None:
    done = train(convkit, "--validation", "val.npz", "--epochs", "6", "--rate", "0.02", "--gate", "top1 >= 90")
    assert done.code == 0, done.err
    assert "top1 " in done.out
    report = json.loads((folder / "out/report.json").read_text())
    assert report["loss"] == "cross_entropy"
    assert len(report["losses"]) == 6
    assert report["gates"] == [{"gate": "top1 >= 90", "measured": report["scores"]["top1"], "holds": True}]
    manifest = json.loads((folder / "out/manifest.json").read_text())
    assert {"data", "validation"} <= manifest["digests"].keys()
    weights = load_file(folder / "out/weights.safetensors")
    assert (
        sum(array.size for name, array in weights.items() if "running" not in name and "num_" not in name)
        == report["parameters"]
    )
    done = convkit(
        "export", "trainee:build", "--weights", "out/weights.safetensors", "--shape", "input:Nx1x32", "-o", "onnx"
    )
    assert done.code == 0, done.err


def test_a_network_of_one_sample_at_a_time_is_trained_so(convkit: Convkit, folder: Path) -> None:
    words = ("train", "trainee:build", "--data", "val.npz", "--validation", "val.npz", "--epochs", "2")
    done = convkit(*words, "--shape", "input:1x1x32", "-o", "out")
    assert done.code == 0, done.err
    assert json.loads((folder / "out/report.json").read_text())["losses"][0] > 0
    done = convkit(*words, "--shape", "input:1x1x32", "--batch", "16", "-o", "other")
    assert done.code == 2
    assert "input takes 1 samples at a time, not --batch 16" in done.err
    assert not (folder / "other").exists()


def test_the_same_command_gives_the_same_bytes(convkit: Convkit, folder: Path) -> None:
    for out in ("one", "two"):
        assert train(convkit, "--epochs", "2", out=out).code == 0
    assert record.digest_file(folder / "one/weights.safetensors") == record.digest_file(
        folder / "two/weights.safetensors"
    )


def test_what_was_killed_goes_on_to_the_same_bytes(
    convkit: Convkit, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(convkit, "--epochs", "4", out="whole").code == 0
    keep = checkpoint.Checkpoint.keep

    def killed(self: checkpoint.Checkpoint, epoch: int, *kept: object) -> None:
        keep(self, epoch, *kept)  # type: ignore[arg-type]
        if epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoint, "keep", killed)
        assert train(convkit, "--epochs", "4", out="half").code == 130
    done = train(convkit, "--epochs", "5", "--resume", out="half")
    assert done.code == 2
    assert "is of another training" in done.err
    done = train(convkit, "--epochs", "4", "--resume", out="half")
    assert done.code == 0, done.err
    whole, half = (record.digest_file(folder / name / "weights.safetensors") for name in ("whole", "half"))
    assert whole == half
    assert len(json.loads((folder / "half/report.json").read_text())["losses"]) == 4
    assert not list(folder.glob(".half*"))


def test_a_gate_that_is_missed_is_exit_1_and_the_weights_are_there(convkit: Convkit, folder: Path) -> None:
    done = train(convkit, "--validation", "val.npz", "--epochs", "1", "--rate", "1e-6", "--gate", "top1 >= 99")
    assert done.code == 1
    assert "the trained network misses 'top1 >= 99'" in done.err
    assert (folder / "out/weights.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--gate", "top1 >= 90"), "--gate is given without --validation"),
        (("--gate", "p50 <= 1x", "--validation", "val.npz"), "'p50 <= 1x' is no limit on a metric"),
        (("--gate", "top1 >= -1", "--validation", "val.npz"), "'top1 >= -1' is no limit on a metric"),
        (("--gate", "psnr >= 9", "--validation", "val.npz"), "metric 'psnr' needs the float network's outputs"),
        (
            ("--gate", "top1 >= 9", "--metric", "top5", "--validation", "val.npz"),
            "one metric is scored, not top5 and top1",
        ),
        (("--loss", "mse"), "labels of [256] in int64 are none for mse"),
        (("--rate", "nan"), "nan"),
        (("--validation", "nothing.npz"), "nothing.npz"),
    ],
)
def test_what_is_wrong_is_one_line(words: tuple[str, ...], said: str, convkit: Convkit, folder: Path) -> None:
    done = train(convkit, "--epochs", "1", *words)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err
    assert not (folder / "out").exists()


def test_a_file_is_no_function_and_shapes_are_needed(convkit: Convkit, folder: Path) -> None:
    for words, said in (
        (("net.onnx", "--shape", "input:Nx1x32"), "is no function that builds a network"),
        (("trainee:build",), "the inputs of trainee:build have no shapes"),
    ):
        done = convkit("train", *words, "--data", "train.npz", "-o", "out")
        assert done.code == 2
        assert said in done.err


def test_data_without_labels_is_told(convkit: Convkit, folder: Path) -> None:
    np.savez("bare.npz", input=np.random.default_rng(0).normal(size=(8, 1, 32)).astype(np.float32))
    done = convkit("train", "trainee:build", "--shape", "input:Nx1x32", "--data", "bare.npz", "-o", "out")
    assert done.code == 2
    assert "bare.npz has no labels to learn from" in done.err
