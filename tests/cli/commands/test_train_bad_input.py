"""The one line that what plain `convkit train` cannot learn from gets."""

from pathlib import Path

import numpy as np
import pytest

from tests.command_line import Convkit, Result, refused

NET = """import torch
from torch import nn

def build(channels=4):
    return nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(channels, 2))

def images():
    return nn.Conv2d(1, 1, 3, padding=1)

class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = build()

    def forward(self, input):
        return {"scores": self.body(input)}

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = build()

    def forward(self, input, mask):
        return self.body(input * mask)

class Single(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = build()

    def forward(self, input):
        return self.body(input)[:, 0]

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.last = nn.Embedding(32, 8), nn.Linear(8, 2)

    def forward(self, tokens):
        return self.last(self.table(tokens).mean(1))
"""
IMAGES, WORDS = ("--shape", "input:Nx1x8x8"), ("--shape", "tokens:int64:Nx6")


DRAW = np.random.default_rng(0)
PICTURES, LABELS = DRAW.normal(size=(96, 1, 8, 8)).astype(np.float32), DRAW.integers(2, size=96)


def tokens(*, beyond: int | None = None) -> np.ndarray:
    """Of which one, of that sample, is none of the network's."""
    found = np.random.default_rng(1).integers(0, 32, (96, 6))
    if beyond is not None:
        found[beyond, 3] = 99
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "plain_nets.py").write_text(NET)
    np.savez(tmp_path / "train.npz", input=PICTURES, mask=PICTURES, labels=LABELS)
    np.savez(tmp_path / "clean.npz", input=PICTURES, labels=PICTURES / 2)
    np.savez(tmp_path / "words.npz", tokens=tokens(), labels=LABELS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(convkit: Convkit, net: str, *words: str, data: str = "train.npz") -> Result:
    return convkit("train", f"plain_nets:{net}", "--data", data, "--epochs", "1", *words, "-o", "out")


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("--loader", "plain_nets:build"), "--loader"),
        (("--teach", "1"), "--teach"),
        (("--ranges", "followed"), "--ranges"),
        (("--norms",), "--norms"),
        (("--shards", "2"), "--shards"),
    ],
)
def test_what_says_how_quantized_networks_are_trained_is_none_of_the_plain_training(
    words: tuple[str, ...], option: str, convkit: Convkit, folder: Path
) -> None:
    refused(train(convkit, "build", *IMAGES, *words), f"{option} says how a quantized network is trained")


def test_several_processes_would_do_the_same(convkit: Convkit, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = "train without --precision or --elastic trains in one process; leave out torchrun"
    refused(train(convkit, "build", *IMAGES), said)


def test_images_alone_are_moved(convkit: Convkit, folder: Path) -> None:
    done = train(convkit, "images", *IMAGES, "--augment", "flip", data="clean.npz")
    refused(done, "--augment moves images, and not labels that are images themselves")
    done = train(convkit, "Two", *IMAGES, "--shape", "mask:Nx1x8x8", "--augment", "shift")
    refused(done, "--augment moves images, and not the other inputs")
    assert train(convkit, "build", *IMAGES, "--augment", "flip,shift").code == 0


def test_a_shape_that_the_network_does_not_take_is_told(convkit: Convkit, folder: Path) -> None:
    np.savez("three.npz", input=np.repeat(PICTURES, 3, 1), labels=LABELS)
    done = train(convkit, "build", "--shape", "input:Nx3x8x8", data="three.npz")
    refused(done, "plain_nets:build does not run on input:64x3x8x8: Given groups=1")


def test_a_network_that_makes_no_tensor_is_told(convkit: Convkit, folder: Path) -> None:
    refused(train(convkit, "Named", *IMAGES), "plain_nets:Named makes a dict; wrap it")


def test_a_network_that_makes_one_number_a_sample_has_no_classes(convkit: Convkit, folder: Path) -> None:
    refused(train(convkit, "Single", *IMAGES), "the output is one number a sample, [64], so there are no classes")


@pytest.mark.parametrize("row", [0, 95])
def test_an_index_that_a_network_has_no_entry_for_is_told(row: int, convkit: Convkit, folder: Path) -> None:
    """Among the first samples, or among those that come later."""
    np.savez("beyond.npz", tokens=tokens(beyond=row), labels=LABELS)
    said = "the data holds an index that the network has no entry for: index out of range"
    refused(train(convkit, "Words", *WORDS, data="beyond.npz"), said)
    refused(train(convkit, "Words", *WORDS, "--validation", "beyond.npz", data="words.npz"), said)
    assert train(convkit, "Words", *WORDS, data="words.npz").code == 0
