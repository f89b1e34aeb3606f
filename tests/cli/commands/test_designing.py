"""`convkit shrink --apriori`: factories of smaller networks, and of deformable ones that hardware likes, that train."""

import json
from pathlib import Path

import numpy as np
import pytest

from convkit.compress import design, function
from tests.command_line import Convkit

BUILDERS = """
from torch import nn

from convkit.compress.convs.deform import DeformBlock
from tests.nets import resnet


def plain():
    return resnet.net(width=32, classes=4)


def deformable():
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), DeformBlock(8, 8), *head)
"""
SHAPE = ("--shape", "x:Nx3x32x32")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "builders.py").write_text(BUILDERS)
    draw = np.random.default_rng(0)
    labels = np.arange(64) % 4
    x = draw.normal(0, 0.3, (64, 3, 32, 32)) + labels[:, None, None, None]
    np.savez(tmp_path / "train.npz", x=x.astype(np.float32), labels=labels)
    np.savez(tmp_path / "input.npz", input=x.astype(np.float32), labels=labels)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "builders", raising=False)
    return tmp_path


def test_a_network_of_fewer_products_is_trained_and_exported(convkit: Convkit, folder: Path) -> None:
    done = convkit("shrink", "builders:plain", "--apriori", "--products", "<=25%", *SHAPE, "-o", "few")
    assert done.code == 0, done.err
    report = json.loads((folder / "few/report.json").read_text())
    assert 0.15 <= report["parameters"] / report["original_parameters"] <= 0.5
    assert 0.2 <= report["products_left"] * report["input_size"] ** 2 <= 0.35
    assert f"{report['products_left']:.1%} of the products on inputs of the same size; for 25% train on" in done.out
    words = ("few.designed:build", *SHAPE, "--data", "train.npz", "--validation", "train.npz", "--epochs", "4")
    done = convkit("train", *words, "--batch", "16", "-o", "few/trained")
    assert done.code == 0, done.err
    trained = json.loads((folder / "few/trained/report.json").read_text())
    assert trained["parameters"] == report["parameters"]
    assert trained["losses"][-1] < trained["losses"][0]
    weights = ("--weights", "few/trained/weights.safetensors")
    done = convkit("export", "few.designed:build", *SHAPE, *weights, "--target", "onnxruntime", "-o", "few/float")
    assert done.code == 0, done.err


def test_deformable_convolutions_are_changed_behind_their_training(convkit: Convkit, folder: Path) -> None:
    words = ("--shape", "input:Nx3x32x32", "--data", "input.npz", "--epochs", "1", "--batch", "16")
    assert convkit("train", "builders:deformable", *words, "-o", "whole").code == 0
    done = convkit("shrink", "builders:deformable", "--apriori", "--deform", "square,round", "-o", "square")
    assert done.code == 0, done.err
    weights = ("--arg", "weights=whole/weights.safetensors")
    done = convkit("train", "square.designed:build", *weights, *words, "-o", "square/trained")
    assert done.code == 0, done.err
    block = function.load("square.designed:build")(weights="whole/weights.safetensors")[2]
    assert block.square
    assert block.rounded
    held = design.made("builders:deformable", {}, "whole/weights.safetensors")[2]
    assert bool((block.conv.weight == held.conv.weight).all())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("builders:plain",), "nothing is asked of the network before training; give --products or --deform"),
        (("builders:plain", "--products", "<=25%"), "how many products a network has hangs on its inputs"),
        (("builders:plain", "--deform", "square"), "the network has no DeformBlock"),
        (("builders:deformable", "--deform", "round,squared"), "deformable convolutions are not made 'squared'"),
        (("net.onnx", "--deform", "round"), "net.onnx is no function that builds a network"),
        (
            ("builders:plain", "--products", "<=25%", "--latency", "<=1ms"),
            "before training there is nothing to measure",
        ),
        (("builders:plain", "--products", "<=25%", "--formats", "int8"), "before training there is nothing to search"),
        (("builders:plain", "--products", "<=25%", "--importance", "norm"), "leave out --importance"),
        (("builders:deformable", "--deform", "round", "--step", "4"), "leave out --step"),
    ],
)
def test_what_cannot_be_is_told(words: tuple[str, ...], told: str, convkit: Convkit, folder: Path) -> None:
    done = convkit("shrink", *words, "--apriori", "-o", "out")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert told in done.err
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--products", "<=25%"), "--products and --deform are of networks that are to be trained; add --apriori"),
        ((), "a trained network's channels need --data"),
    ],
)
def test_a_trained_network_is_shrunk_by_data(words: tuple[str, ...], told: str, convkit: Convkit, folder: Path) -> None:
    done = convkit("shrink", "net.onnx", *words, "-o", "out")
    assert done.code == 2
    assert told in done.err
