"""`convkit factorize`: a factory of the network with fewer parameters, which trains, and merges back."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from convkit.compress import plan as plans
from tests.cli import steady
from tests.command_line import Convkit

NET = """from torch import nn
from convkit.compress.convs.sub_pixel_conv import SubPixelConv2d

def build(channels=16):
    def block(read, made):
        return [nn.Conv2d(read, made, 3, padding=1), nn.BatchNorm2d(made), nn.ReLU()]
    return nn.Sequential(*block(1, channels), *block(channels, channels), nn.Conv2d(channels, channels, 1), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2))

def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))

class Scaled(nn.Conv2d):
    def __init__(self, channels, scale):
        super().__init__(channels, channels, 3, padding=1)
        self.scale = scale

    def forward(self, x):
        return self.scale * super().forward(x)

def larger(channels=16):
    return nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1),
                         nn.ReLU(), Scaled(channels, 0.5), SubPixelConv2d(channels, 1, 3, 2))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Horizontal and vertical stripes, and a network for them."""
    (tmp_path / "wide.py").write_text(NET)
    draw = np.random.default_rng(0)
    labels = draw.integers(2, size=256)
    waves = np.sin(np.arange(8) * 1.5 + draw.uniform(0, 6, (256, 1)))[:, None, None, :].repeat(8, 2)
    images = np.where(labels[:, None, None, None], waves, waves.swapaxes(2, 3)) + draw.normal(0, 0.3, (256, 1, 8, 8))
    np.savez(tmp_path / "train.npz", input=images.astype(np.float32), labels=labels)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("form", ["one_way", "cp", "tucker2"])
def test_a_factory_that_trains_and_merges_back(form: str, convkit: Convkit, folder: Path) -> None:
    out = f"fewer_{form}"
    done = convkit(
        "factorize", "wide:build", "--apriori", "--arg", "channels=24", "--form", form, "--params", "<=40%", "-o", out
    )
    assert done.code == 0, done.err
    assert f"{out}/factored.py" in done.out
    report = json.loads((folder / out / "report.json").read_text())
    assert report["parameters"] <= 0.4 * report["original_parameters"]
    assert {"0", "3", "6"} == report["layers"].keys()
    shape, model = ("--shape", "input:Nx1x8x8"), ("--arg", "channels=24")
    done = convkit(
        "train", f"{out}.factored:build", *model, *shape, "--data", "train.npz", "--validation", "train.npz",
        "--epochs", "8", "--gate", "top1 >= 90", "-o", f"{out}/trained",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert json.loads((folder / out / "trained/report.json").read_text())["parameters"] == report["parameters"]
    weights = f"{out}/trained/weights.safetensors"
    for name, words in (("chain", ("--weights", weights)), ("dense", ("--arg", f"weights={weights}"))):
        factory = f"{out}.factored:{'build' if name == 'chain' else 'dense'}"
        done = convkit("export", factory, *model, *words, *shape, "--target", "onnxruntime", "-o", f"{out}/{name}")
        assert done.code == 0, done.err
    import onnx
    import onnxruntime

    x = np.load("train.npz")["input"][:5]
    made = [
        onnxruntime.InferenceSession(f"{out}/{name}/model.onnx").run(None, {"input": x})[0]
        for name in ("chain", "dense")
    ]
    assert np.abs(made[0] - made[1]).max() <= 1e-4 * np.abs(made[1]).max()
    convs = [
        sum(node.op_type == "Conv" for node in onnx.load(f"{out}/{name}/model.onnx").graph.node)
        for name in ("chain", "dense")
    ]
    assert convs[1] == 3 < convs[0]


def test_the_same_command_writes_the_same_and_draws_the_same(convkit: Convkit, folder: Path) -> None:
    for out in ("one", "other"):
        assert convkit("factorize", "wide:build", "--apriori", "--params", "<=40%", "-o", out).code == 0
    assert (folder / "one/factored.py").read_bytes() == (folder / "other/factored.py").read_bytes()
    from convkit.compress import function

    torch.manual_seed(1)
    one = function.load("one.factored:build")().state_dict()
    torch.manual_seed(1)
    other = function.load("other.factored:build")().state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_network_with_convolutions_of_other_classes_runs(convkit: Convkit, folder: Path) -> None:
    done = convkit("factorize", "wide:larger", "--apriori", "--params", "<=80%", "-o", "larger")
    assert done.code == 0, done.err
    report = json.loads((folder / "larger/report.json").read_text())
    assert report["layers"].keys() == {"0", "2"}
    assert report["parameters"] <= 0.8 * report["original_parameters"]
    from convkit.compress import function

    made, x = function.load("larger.factored:build")(), torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        wanted = made(x)
        assert wanted.shape == (2, 1, 16, 16)
        torch.save(made.state_dict(), "larger.pt")
        dense = function.load("larger.factored:dense")(weights="larger.pt")
        assert (dense(x) - wanted).abs().max() <= 1e-4 * wanted.abs().max()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("wide:build", "--form", "cpp"), "no form is called 'cpp'"),
        (("wide:build", "--params", "15"), "is no share"),
        (("wide:build", "--params", "<=1%"), "parameters at least"),
        (("wide:linear",), "no convolution of the network is smaller in the form one_way"),
        (("net.onnx",), "net.onnx is no function that builds a network"),
        (("wide:build", "--weights", "w.safetensors"), "--weights are those of another network"),
    ],
)
def test_what_cannot_be_is_told(words: tuple[str, ...], told: str, convkit: Convkit, folder: Path) -> None:
    done = convkit("factorize", *words, "--apriori", "-o", "out")
    assert done.code == 2
    assert told in done.err
    assert not (folder / "out").exists()


def test_each_chain_is_merged_but_where_it_pays(
    convkit: Convkit, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network of ordinary convolutions is searched for the chains that it was trained as: they are exact. It is
    files' sizes that are compared here.
    """
    steady.install(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    done = convkit("factorize", "wide:build", "--apriori", "--arg", "channels=24", "--params", "<=45%", "-o", "slim")
    assert done.code == 0, done.err
    shape = ("--arg", "channels=24", "--shape", "input:Nx1x8x8")
    done = convkit("train", "slim.factored:build", *shape, "--data", "train.npz", "--epochs", "1", "-o", "learnt")
    assert done.code == 0, done.err
    words = (*shape, "--arg", "weights=learnt/weights.safetensors", "--target", "onnxruntime-cpu")
    done = convkit("export", "slim.factored:dense", *words, "-o", "whole")
    assert done.code == 0, done.err
    search = (
        "--form",
        "one_way",
        "--data",
        "train.npz",
        "--limit",
        "32",
        "--size",
        "<=0.9x",
        "--budget",
        "1",
        "--no-tune",
    )
    done = convkit("factorize", "slim.factored:dense", *words, *search, "-o", "chosen")
    assert done.code == 0, done.err
    forms = json.loads((folder / "slim/report.json").read_text())["layers"]
    chosen = plans.read(folder / "chosen/plan.yaml").forms
    assert chosen
    assert chosen.keys() <= {name for name, form in forms.items() if form}
    with np.load(folder / "train.npz") as held:
        given = {"input": held["input"][:32]}
    made, wanted = (
        onnxruntime.InferenceSession(folder / place / "model.onnx", providers=["CPUExecutionProvider"]).run(None, given)
        for place in ("chosen", "whole")
    )
    assert np.abs(made[0] - wanted[0]).max() <= 1e-5 * np.abs(wanted[0]).max()
