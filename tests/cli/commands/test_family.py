"""`convkit train --elastic`, `convkit shrink` of the family it leaves, and `convkit distill`: one way through them."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.command_line import Convkit, Result

NET = """from torch import nn

class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, channels, 5, padding=2), nn.BatchNorm2d(channels), nn.ReLU(),
                                  nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels))

    def forward(self, x):
        return x + self.body(x)

def build(channels=16):
    return nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(),
                         Block(channels), Block(channels), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(channels, 2))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stripes that lie or stand, in noise."""
    made = tmp_path_factory.mktemp("family")
    (made / "elastic_net.py").write_text(NET)
    draw = np.random.default_rng(0)
    for name, count in (("train", 256), ("val", 96)):
        labels = draw.integers(2, size=count)
        stripes = np.sin(np.arange(12) * 1.5 + draw.uniform(0, 6, (count, 1)))
        images = np.where(labels[:, None, None] == 1, stripes[:, :, None], stripes[:, None, :])
        images = images + draw.normal(0, 0.5, images.shape)
        np.savez(made / f"{name}.npz", input=images[:, None].astype(np.float32), labels=labels)
    return made


class Family:
    def __init__(self, convkit: Convkit) -> None:
        self.convkit = convkit

    def train(self, *words: str, out: str = "family") -> Result:
        asked = "--elastic", "width,depth,kernel", "--epochs", "4", "--warm", "1", "--batch", "32"
        data = "--shape", "input:Nx1x12x12", "--data", "train.npz", "--validation", "val.npz"
        return self.convkit("train", "elastic_net:build", *data, *asked, *words, "-o", out)

    def shrink(self, *words: str) -> Result:
        usual = "--target", "onnxruntime-cpu", "--budget", "2", "--no-tune"
        return self.convkit("shrink", "family", "--data", "val.npz", *usual, *words, "-o", "member")


@pytest.fixture
def family(convkit: Convkit, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Family:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(folder)
    made = Family(convkit)
    if not (folder / "family").exists():
        done = made.train()
        assert done.code == 0, done.err
    return made


def weights(path: Path) -> int:
    return sum(numpy_helper.to_array(one).size for one in onnx.load(path).graph.initializer)


def test_members_of_one_training_are_picked_by_time(family: Family, folder: Path) -> None:
    report = json.loads((folder / "family" / "report.json").read_text())
    assert report["scores"]["whole"] >= 90
    assert report["scores"]["least"] >= 80
    done = family.shrink("--latency", "<=10s")
    assert done.code == 0, done.err
    picked = json.loads((folder / "member" / "report.json").read_text())
    assert picked["within"]
    assert picked["kept"]["top1"] >= report["scores"]["least"]
    assert picked["measurement"]["baseline"] == "whole"
    onnx.checker.check_model(onnx.load(folder / "member" / "model.onnx"))
    done = family.convkit("export", "family", "--target", "onnxruntime-cpu", "-o", "whole")
    assert done.code == 0, done.err


def test_a_limit_beyond_the_least_member_keeps_that_and_is_exit_1(family: Family, folder: Path) -> None:
    done = family.shrink("--latency", "<=1us")
    assert done.code == 1
    assert "out of reach of this family" in done.err
    whole = family.convkit("export", "family", "--target", "onnxruntime-cpu", "-o", "whole")
    assert whole.code == 0, whole.err
    assert weights(folder / "member" / "model.onnx") < 0.5 * weights(folder / "whole" / "model.onnx")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "one limit on its time"),
        (("--size", "<=1MB"), "picked by time"),
        (("--latency", "<=1ms", "--keep", "Conv"), "--keep is for one network"),
        (("--latency", "<=1ms", "--formats", "int8"), "one limit on its time"),
        (("--latency", "<=1ms", "--max-drop", "1"), "--max-drop is for one network"),
        (("--latency", "<=1ms", "--max-drop", "5"), "--max-drop is for one network"),
        (("--latency", "<=1ms", "--min-sqnr", "20"), "--min-sqnr is for one network"),
        (("--latency", "<=1ms", "--step", "4"), "--step is for one network"),
        (("--latency", "<=1ms", "--resume"), "--resume is for one network"),
    ],
)
def test_what_a_family_does_not_take_is_told(words: tuple[str, ...], told: str, family: Family) -> None:
    done = family.shrink(*words)
    assert done.code == 2
    errors = [line for line in done.err.splitlines() if not line.startswith("replacing the earlier result")]
    assert len(errors) == 1
    assert told in errors[0]


def test_a_dry_run_says_what_would_be_picked(family: Family) -> None:
    done = family.shrink("--latency", "<=1ms", "--dry-run")
    assert done.code == 0, done.err
    assert "would pick the member of family" in done.out


def test_elastic_training_is_of_classes(family: Family) -> None:
    assert "leave out --loss, --metric, --gate" in family.train("--gate", "top1 >= 90", out="other").err
    assert "networks are not elastic in 'sideways'" in family.train("--elastic", "sideways", out="other").err


@pytest.mark.parametrize(
    ("label", "told"), [(-1, "label -1 of sample 255"), (2, "there is a label 2, the network tells 2 classes apart")]
)
def test_a_label_that_is_no_class_is_told(label: int, told: str, family: Family, folder: Path) -> None:
    with np.load(folder / "train.npz") as held:
        np.savez(folder / "odd.npz", input=held["input"], labels=np.append(held["labels"][:-1], label))
    done = family.train("--data", "odd.npz", out="other")
    assert (done.code, told in done.err) == (2, True), done.err
    assert not (folder / "other").exists()


def test_what_was_shrunk_is_distilled_without_labels(family: Family, folder: Path) -> None:
    done = family.convkit("export", "family", "--target", "onnxruntime-cpu", "-o", "whole")
    assert done.code == 0, done.err
    assert family.shrink("--latency", "<=1us").code == 1
    asked = "--teacher", "whole/model.onnx", "--data", "train.npz", "--epochs", "3"
    done = family.convkit("distill", "member/model.onnx", *asked, "-o", "tuned")
    assert done.code == 0, done.err
    report = json.loads((folder / "tuned" / "report.json").read_text())
    assert report["after"] < report["before"]
    assert weights(folder / "tuned" / "model.onnx") == weights(folder / "member" / "model.onnx")
