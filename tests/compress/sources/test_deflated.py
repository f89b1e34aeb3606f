"""Archives whose records are packed: what they unpack to is held against free memory before it is unpacked."""

import io
import types
import zipfile
from pathlib import Path

import psutil
import pytest
import torch
from torch import nn

from convkit.compress.errors import ConvkitError
from convkit.compress.model import ModelRef, load
from convkit.compress.sources import _weights

SIDE = 1024


def _network() -> nn.Module:
    """4 MiB of zeros, which pack to a thousandth."""
    network = nn.Sequential(nn.Linear(SIDE, SIDE, bias=False))
    nn.init.zeros_(network[0].weight)
    return network.eval()


def _packed(data: io.BytesIO, path: Path) -> Path:
    with zipfile.ZipFile(data) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert path.stat().st_size < SIDE * SIDE // 20
    return path


def _weights_file(path: Path) -> Path:
    torch.save(_network().state_dict(), data := io.BytesIO())
    return _packed(data, path)


def _program(path: Path) -> Path:
    torch.export.save(torch.export.export(_network(), (torch.zeros(1, SIDE),)), data := io.BytesIO())
    return _packed(data, path)


def _leave(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=free))


def test_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(_weights_file(tmp_path / "weights.pth"))
    _weights.install(_network(), path)
    _leave(4 * SIDE * SIDE, monkeypatch)
    with pytest.raises(ConvkitError, match=r"weights\.pth takes .* of free memory"):
        _weights.install(_network(), path)


def test_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(_program(tmp_path / "net.pt2"))
    load(ModelRef(path))
    _leave(4 * SIDE * SIDE, monkeypatch)
    with pytest.raises(ConvkitError, match=r"net\.pt2: the program takes .* of free memory"):
        load(ModelRef(path))
