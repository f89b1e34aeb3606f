"""`convkit export --kernel`: what convkit's own kernels compute, and every way in which they do not."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.command_line import Convkit
from tests.compress.network import Net

RTX = ("--target", "trt-rtx", "--sm", "86")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A large depthwise kernel between two small convolutions."""
    net = Net("N", 4, 16, 16)
    deep = net.conv(net.conv("x", 6, 3), 6, 9, group=6)
    onnx.save(net.proto(net.conv(deep, 4, 1)), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_what_kernels_compute_is_told_and_the_file_computes_what_it_did(
    convkit: Convkit, file: Path, tmp_path: Path
) -> None:
    done = convkit("export", str(file), *RTX, "--kernel", "all", "-o", str(tmp_path / "out"))
    assert done.code == 0, done.err
    assert "computed by kernels of convkit: tap_conv 1" in done.out
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert list(report["kernels"].values()) == ["tap_conv"]
    assert report["engine"]["runs_in"] == {"fp32": 3}
    assert report["operators"]["TapConv"] == 1
    given = {"x": np.random.default_rng(0).normal(size=(2, 4, 16, 16)).astype(np.float32)}
    made, wanted = (
        onnxruntime.InferenceSession(str(each)).run(None, given)[0] for each in (tmp_path / "out/model.onnx", file)
    )
    assert np.array_equal(made, wanted)


def test_the_same_file_comes_of_the_same_command(convkit: Convkit, file: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        done = convkit("export", str(file), *RTX, "--kernel", "tap_conv", "--no-build", "-o", str(tmp_path / name))
        assert done.code == 0, done.err
    assert (tmp_path / "one/model.onnx").read_bytes() == (tmp_path / "two/model.onnx").read_bytes()
    assert not (tmp_path / "one/engine.trt").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*RTX, "--kernel", "tapconv"), "no op is called 'tapconv'; did you mean 'tap_conv'?"),
        ((*RTX, "--kernel", "grn"), "kernel grn finds nothing in this network that it computes"),
        (
            ("--target", "openvino", "--kernel", "tap_conv"),
            "--kernel concerns engines that are built; openvino builds none",
        ),
    ],
)
def test_what_cannot_be_is_one_line(
    words: tuple[str, ...], said: str, convkit: Convkit, file: Path, tmp_path: Path
) -> None:
    done = convkit("export", str(file), *words, "-o", str(tmp_path / "out"))
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_without_triton_there_is_an_install_line(
    convkit: Convkit, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convkit.export.kernel.is_here", lambda: False)
    done = convkit("export", str(file), *RTX, "--kernel", "tap_conv", "-o", str(tmp_path / "out"))
    assert done.code == 3
    assert "pip install 'convkit[kernels]'" in done.err


def test_what_exports_kernels_lints_clean(convkit: Convkit, file: Path, tmp_path: Path) -> None:
    assert convkit("export", str(file), *RTX, "--kernel", "all", "-o", str(tmp_path / "out")).code == 0
    assert convkit("lint", str(tmp_path / "out/model.onnx"), *RTX).code == 0
