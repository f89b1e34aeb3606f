"""`convkit distill`: what it does not learn with, in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from convkit.compress.model import ModelRef, parse_shape
from convkit.compress.sources import factory
from convkit.export.onnx import to_onnx
from tests.cli.quantizable import samples
from tests.command_line import Convkit, Result
from tests.compress.network import residual


class Two(nn.Module):
    """Images, and what is added to them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.conv(x + y).mean((2, 3))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    residual().save(tmp_path / "net.onnx", "scores")
    shapes = dict(parse_shape(f"{name}:Nx3x8x8") for name in "xy")
    made = factory.from_module(Two().eval(), ModelRef("nets:two", shapes=shapes))
    (tmp_path / "two.onnx").write_bytes(to_onnx(made).SerializeToString())
    np.savez(tmp_path / "train.npz", **samples(24), y=samples(24)["x"][::-1])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def distill(convkit: Convkit, net: str, *words: str) -> Result:
    usual = "--teacher", net, "--data", "train.npz", "--epochs", "1"
    return convkit("distill", net, *usual, *words, "-o", "tuned")


def refused(done: Result, said: str) -> None:
    assert done.code == 2, done.err
    assert said in done.err
    assert done.err.count("\n") == 1
    assert done.out == ""
    assert not Path("tuned").exists()


def test_other_inputs_are_not_moved_with_images(convkit: Convkit, folder: Path) -> None:
    done = distill(convkit, "two.onnx", "--augment", "flip")
    refused(done, "--augment moves images, and not the other inputs")
    assert distill(convkit, "two.onnx").code == 0


def test_several_processes_would_do_the_same(convkit: Convkit, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused(distill(convkit, "net.onnx"), "distill trains in one process; leave out torchrun")


def test_norms_take_more_than_one_sample(convkit: Convkit, folder: Path) -> None:
    done = distill(convkit, "net.onnx", "--norms", "--batch", "1")
    refused(done, "--norms takes more than one sample at a time")
    assert distill(convkit, "net.onnx", "--norms", "--batch", "2").code == 0
