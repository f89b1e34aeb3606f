"""The packed cache is the cache."""

from pathlib import Path

import pytest

from tests.bench import pack


def test_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {Path("cache/networks/lite0.onnx"): b"network" * 999, Path("cache/photos.npz"): b"photos"}
    monkeypatch.setattr(pack, "_files", lambda *_: files.items())
    monkeypatch.setattr(pack, "PIECE", 50)
    pack.pack(tmp_path / "packed", ("lite0",), 0)
    assert len(list((tmp_path / "packed").glob("bench.tar.xz.*"))) > 1
    pack.unpack(tmp_path / "packed", tmp_path / "there")
    assert {path: (tmp_path / "there" / path).read_bytes() for path in files} == files
