"""Networks that take so many samples at a time, and no others: their graph has that number in it."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from convkit.cli import quantized_start
from tests.cli.quantizable import samples
from tests.command_line import Convkit
from tests.compress.network import Net

BATCH, COUNT = 4, 26


def fixed(batch: int | str, channels: int = 4, seed: int = 0) -> Net:
    """Reshape makes `batch` rows of what it reads."""
    net = Net(batch, 3, 8, 8, seed=seed)
    made = net.op("Relu", net.conv(net.op("Relu", net.conv("x", channels, 3)), 4, 3))
    flat = net.op("Reshape", made, net.weight(np.int64([batch if isinstance(batch, int) else -1, 256])))
    net.op("Gemm", flat, net.weight(net.normal(5, 256, gain=0.1)), name="scores", transB=1)
    return net


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """26 samples, of which 23 or 24 are learnt from: no whole batches of 4."""
    fixed(BATCH).save(tmp_path / "net.onnx", "scores")
    fixed("N").save(tmp_path / "free.onnx", "scores")
    fixed(BATCH, seed=1).save(tmp_path / "student.onnx", "scores")
    np.savez(tmp_path / "few.npz", **samples(COUNT), labels=np.arange(COUNT) % 5)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quantized_start, "SECONDS", 0.5)  # what files take tells nothing here
    return tmp_path


@pytest.mark.parametrize("words", [("--precision", "int8", "--norms"), ("--switch", "8,4")])
def test_it_is_trained_in_its_own_batches(words: tuple[str, ...], convkit: Convkit, folder: Path) -> None:
    done = convkit("train", "net.onnx", "--data", "few.npz", "--epochs", "2", *words, "-o", "out")
    assert done.code == 0, done.err
    report = json.loads((folder / "out/report.json").read_text())
    assert report["schedule"]["batch"] == BATCH
    assert len(report["losses"]) == 2
    shape = onnx.load(folder / "out/model.onnx").graph.input[0].type.tensor_type.shape
    assert shape.dim[0].dim_value == BATCH


def test_another_batch_is_told_and_a_free_one_has_the_usual(convkit: Convkit, folder: Path) -> None:
    words = "--data", "few.npz", "--epochs", "1", "--precision", "int8"
    done = convkit("train", "net.onnx", *words, "--batch", "8", "-o", "out")
    assert done.code == 2
    assert "net takes 4 samples at a time, not --batch 8" in done.err
    done = convkit("train", "free.onnx", *words, "-o", "out")
    assert done.code == 0, done.err
    assert json.loads((folder / "out/report.json").read_text())["schedule"]["batch"] == 64


@pytest.mark.parametrize(("student", "teacher"), [("student", "net"), ("student", "free"), ("free", "net")])
def test_it_is_distilled_and_teaches_in_its_own_batches(
    student: str, teacher: str, convkit: Convkit, folder: Path
) -> None:
    words = "--teacher", f"{teacher}.onnx", "--data", "few.npz", "--batch", "4", "--epochs", "2"
    done = convkit("distill", f"{student}.onnx", *words, "-o", "tuned")
    assert done.code == 0, done.err
    assert len(json.loads((folder / "tuned/report.json").read_text())["losses"]) == 2


def test_a_batch_that_the_teacher_does_not_take_is_told(convkit: Convkit, folder: Path) -> None:
    done = convkit("distill", "free.onnx", "--teacher", "net.onnx", "--data", "few.npz", "--batch", "8", "-o", "tuned")
    assert done.code == 2
    assert "net takes 4 samples at a time, not --batch 8" in done.err
