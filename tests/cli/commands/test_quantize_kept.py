"""What a novel convolution wants in float stays there, and is told by its name."""

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
REASON = "an offset is a place"


def test_offsets_stay_in_float(convkit: Convkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "offset_net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    np.savez("data.npz", input=np.random.default_rng(0).standard_normal((24, 3, 16, 16)).astype(np.float32))
    words = ["quantize", "offset_net:build", "--shape", "input:Nx3x16x16", "--data", "data.npz", "-o", "out"]
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
