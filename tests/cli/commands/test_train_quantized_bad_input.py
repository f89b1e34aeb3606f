"""The one line that what `convkit train --precision` cannot learn from gets, and what a kept training is one of."""

from pathlib import Path

import numpy as np
import pytest

from convkit.compress.training import checkpoint
from tests.cli.quantizable import samples
from tests.command_line import Convkit, Result, refused
from tests.compress.network import Net, residual

WORDS = """import torch
from torch import nn

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.conv, self.last = nn.Embedding(32, 8), nn.Conv1d(8, 8, 3, padding=1), nn.Linear(8, 2)

    def forward(self, tokens):
        return self.last(self.conv(self.table(tokens).transpose(1, 2)).relu().mean(2))
"""
COUNT = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("told")
    (made / "quantized_words.py").write_text(WORDS)
    residual().save(made / "net.onnx", "scores")
    bare = Net()
    bare.head(bare.op("Relu", bare.conv(bare.op("Relu", bare.conv("x", 8, 3, bias=False)), 8, 3, bias=False)))
    bare.save(made / "bare.onnx", "scores")
    image = Net()
    image.conv(image.op("Relu", image.conv("x", 8, 3)), 3, 3)
    image.save(made / "image.onnx", "conv2")
    np.savez(made / "train.npz", **samples(COUNT), labels=np.arange(COUNT) % 5)
    np.savez(made / "clean.npz", **samples(COUNT), labels=samples(COUNT)["x"] / 2)
    return made


class Train:
    def __init__(self, convkit: Convkit) -> None:
        self.convkit = convkit

    def __call__(self, *words: str, net: str = "net.onnx", data: str = "train.npz", precision: str = "int8") -> Result:
        formats = () if "--search" in words else ("--precision", precision)
        usual = "--data", data, "--batch", "16", "--epochs", "1", "--target", "onnxruntime-cpu"
        return self.convkit("train", net, *formats, *usual, *words, "-o", "out")


@pytest.fixture
def train(convkit: Convkit, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    monkeypatch.chdir(folder)
    return Train(convkit)


def test_targets_are_not_moved_with_images(train: Train) -> None:
    done = train("--augment", "flip", net="image.onnx", data="clean.npz")
    refused(done, "--augment moves images, and not labels that are images themselves")


def test_norms_stand_for_biases_of_convolutions_only(train: Train) -> None:
    said = "no convolution of bare has a bias that a norm could stand for"
    refused(train("--norms", net="bare.onnx"), said)


def test_formats_without_scales_are_not_searched(train: Train) -> None:
    for names, said in (("int8,fp16", "fp16"), ("fp32,fp16", "fp32")):
        done = train("--search", names, "--bops", "<=0.5x")
        refused(done, f"--search is among formats with scales, which {said} has not")


@pytest.mark.parametrize("words", [(), ("--search", "int8,int4", "--bops", "<=0.05x")])
def test_an_index_that_a_network_has_no_entry_for_is_told(words: tuple[str, ...], train: Train) -> None:
    tokens = np.random.default_rng(1).integers(0, 32, (COUNT, 6))
    tokens[7, 3] = 99
    np.savez("beyond.npz", tokens=tokens, labels=np.arange(COUNT) % 2)
    done = train(*words, "--shape", "tokens:int64:Nx6", net="quantized_words:Words", data="beyond.npz")
    refused(done, "the data holds an index that Words has no entry for")


def test_a_training_in_other_shards_is_another_one(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = checkpoint.Checkpoint.keep

    def killed(self: checkpoint.Checkpoint, epoch: int, *kept: object) -> None:
        keep(self, epoch, *kept)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoint, "keep", killed)
        assert train("--shards", "2").code == 130
    refused(train("--shards", "4", "--resume"), "is of another training")
