"""A network with a novel convolution in the commands: it is named, and what it wants in float stays there."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.command_line import Convkit

NET = """import torch
from torch import nn
from convkit.compress.convs.deform import DeformBlock

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), DeformBlock(8, 8), nn.ReLU(), nn.Conv2d(8, 4, 1))
"""
MODEL = ("offset_net:build", "--shape", "input:Nx3x16x16")
REASON = "an offset is a place"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "offset_net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_offsets_stay_in_float(convkit: Convkit) -> None:
    np.savez("data.npz", input=np.random.default_rng(0).standard_normal((24, 3, 16, 16)).astype(np.float32))
    words = ["quantize", *MODEL, "--data", "data.npz", "-o", "out"]
    intended = convkit(*words, "--dry-run")
    assert intended.code == 0, intended.err
    assert "2.offset, 2.conv.grid_sampler" in intended.err
    assert REASON in intended.err
    assert "would quantize 3 layers" in intended.out, "all but the one that finds offsets"
    done = convkit(*words, "--precision", "int8", "--min-sqnr", "10", "--budget", "1")
    assert done.code == 0, done.err
    kept = json.loads(Path("out/report.json").read_text())["kept_in_float"]
    assert REASON in kept["2.offset"]
    assert "2.offset" not in Path("out/plan.yaml").read_text()


@pytest.mark.parametrize("target", ["onnxruntime-cpu", "openvino-cpu"])
def test_a_file_of_it_knows_what_it_was(convkit: Convkit, target: str) -> None:
    """As one node with a body, or as plain operators."""
    done = convkit("export", *MODEL, "--target", target, "-o", "out")
    assert done.code == 0, done.err
    (file,) = Path("out").glob("*.onnx")
    found = json.loads(convkit("inspect", str(file), "--json").out)
    given = json.loads(convkit("inspect", *MODEL, "--json").out)
    for counted in ("layers", "parameters", "macs"):
        assert found["novel"]["deform:2"][counted] == given["novel"]["deform:2"][counted]
    np.savez("data.npz", input=np.random.default_rng(0).standard_normal((24, 3, 16, 16)).astype(np.float32))
    intended = convkit("quantize", str(file), "--data", "data.npz", "-o", "out2", "--dry-run")
    assert "in float: 2.offset, " in intended.err
    assert "would quantize 3 layers" in intended.out


def test_a_batch_that_a_layer_cannot_take_is_told_with_its_name(convkit: Convkit, folder: Path) -> None:
    made = "from convkit.compress.convs.hyperzzw import HyperLocal"
    layers = "torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), HyperLocal(4, 3))"
    (folder / "hyper_net.py").write_text(f"import torch\n{made}\n\ndef build():\n    return {layers}\n")
    words = ["export", "hyper_net:build", "--target", "onnxruntime-cpu", "-o", "out"]
    refused = convkit(*words, "--shape", "input:Nx3x8x8")
    assert refused.code == 2
    assert "in its layer '1" in refused.err
    assert "HyperZZW takes a batch of 1" in " ".join(refused.err.split())
    assert not Path("out").exists()
    done = convkit(*words, "--shape", "input:1x3x8x8")
    assert done.code == 0, done.err


def test_it_is_counted_as_one(convkit: Convkit) -> None:
    """What its offsets and its kernel multiply: 18 and 8 channels of 3 x 3 by 8, at 14 x 14 places."""
    found = json.loads(convkit("inspect", *MODEL, "--json").out)
    assert found["novel"]["deform:2"]["macs"] >= (18 + 8) * 9 * 8 * 14 * 14
    own = [layer for layer in found["layers"] if layer["part_of"] == "deform:2"]
    assert len(own) == found["novel"]["deform:2"]["layers"] > 2
    assert "deform" in convkit("inspect", *MODEL).out
