"""A novel convolution of somebody else's: a package in a folder, and convkit knows it as its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

CONVKIT = [sys.executable, "-m", "convkit.cli.main"]
RING = '''"""A convolution around a ring: what leaves on one side comes in on the other. And more."""

import torch
from torch import nn

from convkit.compress.conv import Conv, Example


class RingConv(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, groups=channels)

    def forward(self, x):
        return self.conv(nn.functional.pad(x, (1, 1, 1, 1), mode="circular"))


PART = Conv("Somebody, 2026", "T1", (RingConv,), lambda: [Example(RingConv(4), {"x": (4, 6, 7)})])
'''
NET = """import torch
import ring

def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), ring.RingConv(8), torch.nn.Conv2d(8, 4, 1))
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """What pip leaves of a package that brings a part."""
    (tmp_path / "ring.py").write_text(RING)
    (tmp_path / "net.py").write_text(NET)
    about = tmp_path / "ringed-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: ringed\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[convkit.convs]\nring = ring:PART\n")
    return tmp_path


def run(site: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*CONVKIT, *words], cwd=site, env=beside(site), capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


def beside(site: Path) -> dict[str, str]:
    """The environment of a Python that finds packages in `site`, too."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])}


def test_it_is_listed_by_its_name_and_its_first_words(site: Path) -> None:
    found = json.loads(run(site, "list", "convs", "--json").stdout)["convs"]
    assert found["ring"] == "A convolution around a ring: what leaves on one side comes in on the other"
    assert {"dcls", "phc"} <= found.keys()
    assert "not proven here" in run(site, "list", "convs").stdout


def test_it_is_a_node_of_its_own_that_the_engine_computes(site: Path) -> None:
    words = ["export", "net:build", "--shape", "input:Nx3x12x12", "--target", "onnxruntime-cpu", "-o", "out"]
    run(site, *words)
    (file,) = (site / "out").rglob("*.onnx")
    model = onnx.load(file)
    assert "Ring" in [node.op_type for node in model.graph.node]
    run(site, "verify", str(file), "net:build", "--shape", "input:Nx3x12x12")


def test_one_that_cannot_be_imported_is_told_by_its_package(site: Path) -> None:
    (site / "ring.py").write_text('"""Broken."""\nraise RuntimeError("at import")\n')
    code = "from convkit.compress import parts; parts.load('compress/convs', 'ring')"
    done = subprocess.run([sys.executable, "-c", code], env=beside(site), capture_output=True, text=True, check=False)
    assert "'ring' cannot be loaded from 'ring:PART' of the package ringed: RuntimeError: at import" in done.stderr
    listed = " ".join(run(site, "list", "convs", "--json").stdout.split())
    assert "Broken" in listed
    shown = "".join(run(site, "list", "convs").stdout.split())
    assert "cannotbeloaded" in shown.replace("│", "")
    (site / "ring.py").write_text("def f(:\n")
    assert "ring" in run(site, "list", "convs").stdout


def test_a_name_that_convkit_has_is_convkits(site: Path) -> None:
    (site / "ringed-1.0.dist-info" / "entry_points.txt").write_text("[convkit.convs]\neca = ring:PART\n")
    assert "ring" not in json.loads(run(site, "list", "convs", "--json").stdout)["convs"]
    words = ["export", "net:build", "--shape", "input:Nx3x12x12", "--target", "onnxruntime-cpu", "-o", "out"]
    run(site, *words)
    (file,) = (site / "out").rglob("*.onnx")
    assert not onnx.load(file).functions


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ('"T1", RingConv, list', "layers is a tuple of classes"),
        ('"T9", (RingConv,), list', "there is no tier 'T9'"),
        ('"T1", (RingConv,), list, kept=["Sigmoid"]', "kept is reasons by operator or layer"),
        ('"T1", (RingConv,), list, kept={"Sigmoid": 3}', "kept is reasons by operator or layer"),
    ],
)
def test_a_part_that_is_not_filled_in_right_is_told(site: Path, wrong: str, said: str) -> None:
    (site / "ring.py").write_text(RING.partition("PART")[0] + f'PART = Conv("Somebody", {wrong})\n')
    words = ["export", "net:build", "--shape", "input:Nx3x12x12", "--target", "onnxruntime-cpu", "-o", "out"]
    told = run(site, *words, code=2).stderr
    assert said in told


def test_a_part_that_is_something_else_is_told(site: Path) -> None:
    (site / "ring.py").write_text(RING.partition("PART")[0] + "PART = {}\n")
    words = ["export", "net:build", "--shape", "input:Nx3x12x12", "--target", "onnxruntime-cpu", "-o", "out"]
    assert "is a dict, not a Conv" in run(site, *words, code=2).stderr


FOLDED = """from torch.nn import functional as F

def Col2Im(x, image_shape, block_shape, *, dilations=None, pads=None, strides=None):
    return F.fold(x, (4, 5), (2, 2))
"""


def test_operators_are_brought_too(site: Path) -> None:
    """A file of operators is a module that an entry point names; what is wrong with it is told."""
    (site / "folded.py").write_text(FOLDED)
    points = site / "ringed-1.0.dist-info" / "entry_points.txt"
    points.write_text("[convkit.ops]\nfolded = folded\n")
    x, y = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", *shape])
        for name, shape in (("x", (12, 12)), ("y", (3, 4, 5)))
    )
    sizes = [
        onnx.numpy_helper.from_array(np.array(size), name) for name, size in (("image", (4, 5)), ("block", (2, 2)))
    ]
    node = onnx.helper.make_node("Col2Im", ["x", "image", "block"], ["y"], "fold")
    graph = onnx.helper.make_graph([node], "folded", [x], [y], sizes)
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10), site / "f.onnx"
    )
    np.savez(site / "data.npz", x=np.random.default_rng(0).normal(size=(3, 12, 12)).astype("f4"))
    run(site, "verify", "f.onnx", "--engines", "onnxruntime", "--data", "data.npz")
    (site / "folded.py").write_text("raise SystemExit(3)\n")
    found = run(site, "inspect", "f.onnx", code=2).stderr
    assert "'folded' cannot be loaded from 'folded' of the package ringed: SystemExit: 3; repair" in found
    points.unlink()
    assert "Col2Im" in run(site, "inspect", "f.onnx", code=2).stderr
