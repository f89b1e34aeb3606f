"""A network that takes one number beside its samples: a threshold, a scale."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.cli.quantizable import samples
from tests.command_line import Convkit
from tests.compress.network import Net

COUNT = 24


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    net = Net("N", 3, 8, 8)
    wide = net.op("Relu", net.conv(net.op("Mul", "x", "scale"), 8, 3))
    net.head(net.op("Relu", net.conv(wide, 8, 3)))
    proto = net.proto("scores")
    proto.graph.input.insert(0, onnx.helper.make_tensor_value_info("scale", TensorProto.FLOAT, []))
    onnx.save(proto, tmp_path / "net.onnx")
    np.savez(tmp_path / "few.npz", **samples(COUNT), scale=np.float32(1.5), labels=np.arange(COUNT) % 5)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [("--precision", "int8", "--limit", "20"), ("--formats", "int8,fp32", "--max-drop", "100")],
    ids=["precision", "formats"],
)
def test_it_is_quantized(words: tuple[str, ...], convkit: Convkit, folder: Path) -> None:
    done = convkit("quantize", "net.onnx", "--data", "few.npz", *words, "--budget", "1", "-o", "out")
    assert done.code == 0, done.err
    tried = json.loads((folder / "out/report.json").read_text())["networks"]
    assert len(tried) > 1  # whichever is kept, the original too


def test_it_is_shrunk(convkit: Convkit, folder: Path) -> None:
    words = "--latency", "<=0.9x", "--step", "2", "--budget", "1"
    done = convkit("shrink", "net.onnx", "--data", "few.npz", *words, "-o", "out")
    assert done.code in (0, 1), done.err
    assert "widths" in json.loads((folder / "out/report.json").read_text())


def test_it_is_trained(convkit: Convkit, folder: Path) -> None:
    words = "--precision", "int8", "--epochs", "1", "--batch", "8"
    done = convkit("train", "net.onnx", "--data", "few.npz", *words, "-o", "out")
    assert done.code == 0, done.err
    assert (folder / "out/model.onnx").is_file()
