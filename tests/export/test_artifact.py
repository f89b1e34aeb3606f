"""Artifacts on the disk: one piece or weights apart, checked, the same bytes each time."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from convkit.compress import parts, record
from convkit.compress.errors import ConvkitError
from convkit.compress.model import ModelRef, load
from convkit.export import artifact, exporter
from convkit.export.onnx import to_onnx
from tests.runtimes import network


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    file = network.write(tmp_path_factory.mktemp("net") / "net.onnx", batch="N")
    return to_onnx(load(ModelRef(file)))


def scores(path: Path) -> np.ndarray:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, network.sample())[0]


def written(model: onnx.ModelProto, folder: Path, in_one_piece: int) -> tuple[str, dict[str, bytes]]:
    folder.mkdir(exist_ok=True)
    digest = artifact.write_onnx(model, folder / record.MODEL, in_one_piece=in_one_piece)
    return digest, {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize(
    ("in_one_piece", "files"), [(2**31, {"model.onnx"}), (100, {"model.onnx", "model.onnx.data"})], ids=["one", "apart"]
)
def test_the_same_model_gives_the_same_files(
    model: onnx.ModelProto, tmp_path: Path, in_one_piece: int, files: set[str]
) -> None:
    before = model.SerializeToString()
    first, again = (written(model, tmp_path / name, in_one_piece) for name in ("one", "two"))
    assert first == again == written(model, tmp_path / "one", in_one_piece)
    assert set(first[1]) == files
    assert model.SerializeToString() == before
    assert np.array_equal(scores(tmp_path / "one" / "model.onnx"), scores(tmp_path / "two" / "model.onnx"))


def test_weights_apart_are_the_same_network(model: onnx.ModelProto, tmp_path: Path) -> None:
    one, apart = written(model, tmp_path / "one", 2**31), written(model, tmp_path / "apart", 100)
    assert one[0] != apart[0]
    assert np.array_equal(scores(tmp_path / "one" / "model.onnx"), scores(tmp_path / "apart" / "model.onnx"))
    assert load(ModelRef(str(tmp_path / "apart" / "model.onnx"))).outputs[0].name == "scores"


def test_what_the_checker_refuses_is_not_called_written(model: onnx.ModelProto, tmp_path: Path) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    broken.graph.node[0].input[0] = "nothing"
    with pytest.raises(onnx.checker.ValidationError):
        artifact.write_onnx(broken, tmp_path / "model.onnx")


@pytest.mark.parametrize("name", exporter.names())
def test_every_engine_and_target_has_an_exporter(name: str) -> None:
    found, target = exporter.find(name)
    assert isinstance(found, exporter.Exporter)
    assert found.opens is None or found.opens in parts.names("runtimes")
    assert (target is None) == (name in parts.names(exporter.FOLDER))


def test_an_unknown_target_names_the_nearest() -> None:
    with pytest.raises(ConvkitError, match="openvino-cpu"):
        exporter.find("openvino-cpus")
    with pytest.raises(ConvkitError, match="onnxruntime-cpu"):
        exporter.find("gameboy")
