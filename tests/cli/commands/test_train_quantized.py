"""`convkit train --precision`: quantized networks learn, from labels or without, and go on where they were killed."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from torch import fx

from convkit.cli import quantized_scores
from convkit.compress import plan as plans
from convkit.compress import record
from convkit.compress.methods import block_round
from convkit.compress.training import checkpoint, loop
from tests.command_line import Convkit, Result

NET = """from torch import nn
from torch.nn import functional as F

def conv(read, made):
    return nn.Conv2d(read, made, 3, padding=1), nn.BatchNorm2d(made), nn.ReLU()

def build(channels=12):
    return nn.Sequential(*conv(1, channels), *conv(channels, channels), nn.MaxPool2d(2), *conv(channels, channels),
                         *conv(channels, channels), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4))

def gentle(made, labels):
    return F.cross_entropy(made, labels, label_smoothing=0.1)

def wrong(made, labels):
    return made - 1

def loader():
    import numpy as np, torch
    held = np.load("train.npz")
    sets = torch.utils.data.TensorDataset(*(torch.from_numpy(held[name]) for name in ("input", "labels")))
    return torch.utils.data.DataLoader(sets, 64, shuffle=True)
"""
METHODS = "methods: [simplify, fold_batch_norm, merge_parallel, block_round]"
WEIGHTS = "--weights", "float/weights.safetensors", "--shape", "input:Nx1x12x12"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stripes in four directions, in noise."""
    made = tmp_path_factory.mktemp("aware")
    (made / "aware_net.py").write_text(NET)
    draw, place = np.random.default_rng(0), np.arange(12)
    for name, count in (("train", 512), ("val", 256)):
        labels = draw.integers(4, size=count)
        turn = np.array([[1, 0], [0, 1], [0.7, 0.7], [0.7, -0.7]])[labels]
        wave = turn[:, 0, None, None] * place[:, None] + turn[:, 1, None, None] * place[None]
        images = np.sin(wave * 1.5 + draw.uniform(0, 6, (count, 1, 1))) + draw.normal(0, 1.5, (count, 12, 12))
        arrays = {"input": images[:, None].astype(np.float32)}
        np.savez(made / f"{name}.npz", **arrays, labels=labels)
        np.savez(made / f"{name}_bare.npz", **arrays)
    return made


class Aware:
    def __init__(self, convkit: Convkit) -> None:
        self.convkit = convkit

    def train(self, *words: str, data: str = "train.npz", out: str = "out") -> Result:
        usual = "--data", data, "--batch", "64", "--epochs", "3", "--rate", "2e-3"
        return self.convkit("train", "aware_net:build", *WEIGHTS, *usual, *words, "-o", out)


@pytest.fixture
def aware(convkit: Convkit, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Aware:
    monkeypatch.chdir(folder)
    if not (folder / "float").exists():
        words = "--data", "train.npz", "--epochs", "8", "--rate", "0.02", "--shape", "input:Nx1x12x12"
        done = convkit("train", "aware_net:build", *words, "-o", "float")
        assert done.code == 0, done.err
    return Aware(convkit)


def test_two_bits_are_learnt_from_labels_and_run_as_they_were_trained(aware: Aware, folder: Path) -> None:
    words = "--precision", "int2/uint2", "--validation", "val.npz", "--epochs", "8", "--norms"
    done = aware.train(*words, out="two")
    assert done.code == 0, done.err
    assert "rounded" in done.out
    report = json.loads((folder / "two/report.json").read_text())
    scores = {name: one["metrics"]["top1"] for name, one in report["networks"].items()}
    assert scores["trained"] >= scores["rounded"]
    assert min(report["held_back"]) < 0.7 * report["held_back"][0]
    assert abs(scores["trained"] - report["simulated"]["top1"]) <= 0.4  # a sample of 256
    model = onnx.load(folder / "two/model.onnx")
    codes = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer if "weight_quantized" in one.name}
    assert codes
    assert all(-2 <= held.astype(int).min() <= held.astype(int).max() <= 1 for held in codes.values())
    manifest = json.loads((folder / "two/manifest.json").read_text())
    assert {"data", "model", "plan"} <= manifest["digests"].keys()
    assert "weight: int2" in (folder / "two/plan.yaml").read_text()


def test_without_labels_it_learns_what_float_makes(aware: Aware, folder: Path) -> None:
    done = aware.train("--precision", "int3", "--json", "--epochs", "6", data="train_bare.npz", out="bare")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert min(report["held_back"]) < 0.8 * report["held_back"][0]
    assert report["networks"]["trained"]["metrics"]["sqnr"] > report["networks"]["rounded"]["metrics"]["sqnr"]


def test_what_was_killed_goes_on_to_the_same_bytes(aware: Aware, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = aware.train("--precision", "int4/uint4", "--ranges", "followed", out="whole")
    assert done.code == 0, done.err
    keep = checkpoint.Checkpoint.keep

    def killed(self: checkpoint.Checkpoint, epoch: int, *kept: object) -> None:
        keep(self, epoch, *kept)  # type: ignore[arg-type]
        if epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoint, "keep", killed)
        done = aware.train("--precision", "int4/uint4", "--ranges", "followed", out="half")
    assert done.code == 130
    assert "interrupted, state saved" in done.err
    assert not (folder / "half").exists()
    done = aware.train("--precision", "int4/uint4", "--ranges", "followed", "--resume", out="half")
    assert done.code == 0, done.err
    whole, half = (record.digest_file(folder / name / "model.onnx") for name in ("whole", "half"))
    assert whole == half
    assert not list(folder.glob(".half.training"))


def test_a_mixed_plan_is_trained_as_it_stands(aware: Aware, folder: Path) -> None:
    assert aware.train("--precision", "int4", "--epochs", "1", out="plain").code == 0
    plan = (folder / "plain/plan.yaml").read_text()
    (folder / "mixed.yaml").write_text(plan.replace("weight: int4", "weight: int5", 1))
    done = aware.train("--plan", "mixed.yaml", "--loss", "aware_net:gentle", "--teach", "0.2", out="mixed")
    assert done.code == 0, done.err
    made = (folder / "mixed/plan.yaml").read_text()
    assert made.count("weight: int5") == 1
    assert made.count("weight: int4") == plan.count("weight: int4") - 1


def test_rounding_that_a_plan_learns_is_learnt_once(
    aware: Aware, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes minutes on networks of some size; and what training begins with is kept apart from what it makes."""
    assert aware.train("--precision", "int2", "--epochs", "1", out="nearest").code == 0
    plan = (folder / "nearest/plan.yaml").read_text()
    (folder / "learnt.yaml").write_text(re.sub(r"^methods: .*$", METHODS, plan, count=1, flags=re.MULTILINE))
    calls, learn = [], block_round._Learner.learn

    def counted(learner: block_round._Learner, graph: fx.GraphModule) -> None:
        calls.append(graph)
        learn(learner, graph)

    monkeypatch.setattr(block_round._Learner, "learn", counted)
    more = "--rate", "4e-4", "--batch", "16", "--epochs", "6"
    done = aware.train("--plan", "learnt.yaml", "--json", *more, data="train_bare.npz", out="from_learnt")
    assert done.code == 0, done.err
    assert len(calls) == 1
    networks = json.loads(done.out)["networks"]
    assert networks["trained"]["metrics"]["sqnr"] > networks["rounded"]["metrics"]["sqnr"]


@pytest.mark.parametrize(
    ("words", "rate"),
    [(("--precision", "int4"), 2.1e-4), (("--precision", "int8"), 1.15e-5), (("--switch", "8,4"), 7.1e-5)],
)
def test_the_rate_is_that_of_the_formats_where_none_is_given(
    words: tuple[str, ...], rate: float, convkit: Convkit, aware: Aware, folder: Path
) -> None:
    del aware  # it trained the weights
    usual = "--data", "train.npz", "--batch", "64", "--epochs", "1", "--json"
    done = convkit("train", "aware_net:build", *WEIGHTS, *usual, *words, "-o", "usual")
    assert done.code == 0, done.err
    assert json.loads(done.out)["schedule"]["rate"] == pytest.approx(rate, rel=0.05)


def test_a_plan_says_which_target_is_trained_for(aware: Aware, folder: Path) -> None:
    few = "--epochs", "1", "--threads", "1"
    assert aware.train("--precision", "int8", "--target", "openvino-cpu", *few, data="val.npz", out="other").code == 0
    done = aware.train("--plan", "other/plan.yaml", *few, data="val.npz", out="same")
    assert done.code == 0, done.err
    assert plans.read(folder / "same/plan.yaml").target == "openvino-cpu"
    words = "--plan", "other/plan.yaml", "--target", "onnxruntime-cpu"
    done = aware.train(*words, *few, data="val.npz", out="bad")
    assert (done.code, (folder / "bad").exists()) == (2, False)
    assert "the plan is for openvino-cpu, not onnxruntime-cpu" in done.err


def test_it_learns_from_a_loader(aware: Aware, folder: Path) -> None:
    words = "--precision", "int2", "--loader", "aware_net:loader", "--json"
    done = aware.train(*words, data="val.npz", out="loaded")
    assert done.code == 0, done.err
    assert "batches of aware_net:loader" in done.err
    report = json.loads(done.out)
    assert min(report["held_back"]) < report["held_back"][0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--precision", "int9"), "int9"),
        (("--precision", "int8", "--plan", "x.yaml"), "each say formats"),
        (("--precision", "int8", "--elastic", "width"), "--elastic is not for --precision"),
        (("--precision", "int8", "--gate", "top1 >= 9"), "--gate is not for --precision"),
        (("--precision", "int8", "--loss", "huber"), "there is no loss 'huber'"),
        (("--precision", "int8", "--loss", "aware_net:wrong"), "aware_net:wrong returns no tensor"),
        (("--precision", "int8", "--loss", "mse"), "are none for mse"),
        (("--precision", "int8", "--rate", "1e30"), "is the first that is no number"),
        (("--precision", "int8", "--loader", "aware_net:nobody"), "has no 'nobody'"),
    ],
)
def test_what_cannot_be_trained_is_one_line(words: tuple[str, ...], said: str, aware: Aware, folder: Path) -> None:
    done = aware.train(*words, out="bad")
    assert done.code == 2, done.err
    assert said in done.err
    assert not (folder / "bad").exists()


def test_labels_out_of_range_and_none_are_told(aware: Aware, folder: Path) -> None:
    with np.load(folder / "train.npz") as held:
        np.savez(folder / "beyond.npz", input=held["input"], labels=held["labels"] + 1)
    done = aware.train("--precision", "int8", data="beyond.npz", out="bad")
    assert done.code == 2
    assert "a label is class 4, the network has 4 classes" in done.err
    done = aware.train("--precision", "int8", "--teach", "0.5", data="train_bare.npz", out="bad")
    assert done.code == 2
    assert "train_bare.npz has no labels to learn from" in done.err


def test_labels_to_score_by_are_looked_at_before_the_training(
    aware: Aware, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with np.load(folder / "val.npz") as held:
        np.savez(folder / "beyond.npz", input=held["input"], labels=held["labels"] + 1)
    monkeypatch.setattr(loop, "run", None)
    done = aware.train("--precision", "int8", "--validation", "beyond.npz", out="bad")
    assert (done.code, done.out) == (2, ""), done.err
    assert "a label is class 4, the network has 4 classes" in done.err
    assert not (folder / "bad").exists()


def test_a_file_that_is_not_what_was_trained_fails(aware: Aware, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantized_scores, "simulated", lambda *_given: {"top1": 3.0})
    done = aware.train("--precision", "int8", "--epochs", "1", out="apart")
    assert done.code == 1, done.err
    assert "error: the file is not what was trained: top1 is " in done.err
    assert "% in onnxruntime, and was 3 % in training" in done.err
    assert json.loads((folder / "apart/report.json").read_text())["simulated"] == {"top1": 3.0}
