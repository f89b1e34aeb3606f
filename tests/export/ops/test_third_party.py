"""A kernel of somebody else's: a package in a folder, and convkit takes, compiles and builds it as its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

CONVKIT = [sys.executable, "-m", "convkit.cli.main"]
KERNEL = '''"""SiLU in one go."""

import torch
import triton
import triton.language as tl

from convkit.export.kernel import OUTPUT, Case, Kernel, Launch, Stage


@triton.jit
def swish(x, y, count, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + place, place < count, 0.0).to(tl.float32)
    tl.store(y + place, (value * tl.sigmoid(value)).to(y.dtype.element_ty), place < count)


def launch(call):
    count = 1
    for size in call.shapes["x"]:
        count *= size
    return Launch((triton.cdiv(count, 1024),), (count,))


PART = Kernel(
    tensors=("x",),
    shape=lambda shapes, _: list(shapes["x"]),
    stages=(Stage(swish, ("x", OUTPUT), lambda _: {"BLOCK": 1024}, launch),),
    reference=lambda tensors, _: torch.nn.functional.silu(tensors["x"]),
    macs=lambda _: 0,
    cases=lambda: [Case({"x": torch.randn(2, 3, 5, 7)})],
    usual=lambda: Case({"x": torch.randn(16, 64, 56, 56)}),
)
'''
PATTERN = """from convkit.export.kernels import Taken
from convkit.export.pattern import P

SILU = P("Mul", "x", P("Sigmoid", "x"))


def find(network, node):
    match = network.find(node, SILU)
    return None if match is None else Taken(match.nodes, [match.bound["x"]])


PART = find
"""
NET = """import torch

def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.SiLU(), torch.nn.Conv2d(8, 4, 1), torch.nn.SiLU())
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """What pip leaves of a package that brings a kernel."""
    (tmp_path / "swish").mkdir()
    for name, text in (("__init__", ""), ("kernel", KERNEL), ("onnx", PATTERN)):
        (tmp_path / "swish" / f"{name}.py").write_text(text)
    (tmp_path / "net.py").write_text(NET)
    about = tmp_path / "swishing-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: swishing\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[convkit.kernels]\nswish = swish\n")
    return tmp_path


def run(site: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([*CONVKIT, *words], cwd=site, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


EXPORT = ("export", "net:build", "--shape", "input:Nx3x12x12", "--target", "trt-rtx", "--sm", "89", "-o", "out")


def test_it_is_listed_and_built_into_engines(site: Path) -> None:
    found = json.loads(run(site, "list", "kernels", "--json").stdout)["kernels"]
    assert found["swish"] == "SiLU in one go"
    assert "tap_conv" in found
    report = json.loads(run(site, *EXPORT, "--kernel", "swish", "--json").stdout)
    assert list(report["kernels"].values()) == ["swish", "swish"]
    layers = {layer["node"]: layer for layer in report["engine"]["layers"]}
    assert all(layers[name]["ran"] == layers[name]["planned"] == "fp32" for name in report["kernels"])
    nodes = [(node.domain, node.op_type) for node in onnx.load(site / "out" / "model.onnx").graph.node]
    assert nodes.count(("convkit", "Swish")) == 2
    manifest = json.loads((site / "out" / "manifest.json").read_text())
    assert "triton" in manifest["versions"]


def test_one_that_computes_something_else_takes_nothing(site: Path) -> None:
    """Its own definition is held against the nodes."""
    file = site / "swish" / "kernel.py"
    file.write_text(file.read_text().replace("torch.nn.functional.silu(", "torch.nn.functional.gelu("))
    assert "kernel swish finds nothing in this network" in run(site, *EXPORT, "--kernel", "swish", code=2).stderr
    assert not (site / "out").exists()


def test_one_that_raises_is_told(site: Path) -> None:
    (site / "swish" / "kernel.py").write_text("import nothing_of_the_kind\n")
    assert (
        "'swish' cannot be loaded from 'swish' of the package swishing"
        in run(site, *EXPORT, "--kernel", "swish", code=2).stderr
    )
