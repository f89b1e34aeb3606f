"""convkit verify: exit codes, the table, the JSON, and the layer it names."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.command_line import Convkit
from tests.compress.network import Net
from tests.runtimes import network, quantized


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    quantized.write(path)
    return path


def test_one_file_on_every_engine(convkit: Convkit, net: Path) -> None:
    result = convkit("verify", str(net), "--layers")
    assert result.code == 0, result.err
    for engine in ("eager", "onnxruntime", "openvino"):
        assert f"{engine}: no layer departs; " in result.out
    assert "layers within limits" in result.out


def test_a_changed_layer_is_named_with_exit_1(convkit: Convkit, net: Path, tmp_path: Path) -> None:
    changed = quantized.perturb(str(net), tmp_path / "changed.onnx", "depthwise")
    result = convkit("verify", str(net), changed, "--engines", "onnxruntime", "--layers")
    assert result.code == 1
    assert "onnxruntime: depthwise is the first layer that departs" in result.out
    assert "depthwise" in result.err
    assert "FAIL" in result.out


def test_json_holds_every_check(convkit: Convkit, net: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, **network.sample(6), labels=np.arange(6))
    words = ("--data", str(data), "--metric", "top1", "--layers", "--engines", "onnxruntime", "--json")
    result = convkit("verify", str(net), *words)
    found = json.loads(result.out)
    assert (result.code, found["schema_version"], found["passed"], found["samples"]) == (0, 1, True, 6)
    assert {check["measure"] for check in found["checks"]} == {"codes", "end_to_end", "sqnr", "metric"}
    assert found["first_departure"] == {"onnxruntime": None}
    assert set(found["versions"]) == {"onnxruntime"}


def test_the_same_seed_gives_the_same_json(convkit: Convkit, net: Path) -> None:
    words = ("verify", str(net), "--engines", "onnxruntime", "--json", "--seed", "3")
    assert convkit(*words).out == convkit(*words).out


def test_a_factory_of_integers_against_its_file(convkit: Convkit, tmp_path: Path) -> None:
    shape = ("--shape", "tokens:int64:NxT=16")
    done = convkit("export", "tests.nets.words:net", *shape, "-o", str(tmp_path / "out"))
    assert done.code == 0, done.err
    np.savez(tmp_path / "tokens.npz", tokens=np.arange(80).reshape(5, 16) % 32)
    words = (*shape, "--data", str(tmp_path / "tokens.npz"))
    both = convkit("verify", "tests.nets.words:net", str(tmp_path / "out" / "model.onnx"), *words)
    assert both.code == 0, both.err
    assert both.out.count(" pass ") == 3  # eager, onnxruntime, openvino


def test_a_factory_against_its_file(convkit: Convkit, tmp_path: Path) -> None:
    shape = ("--shape", "series:Nx6x100")
    convkit("export", "-m", "tests.nets.watch:net", *shape, "-o", str(tmp_path / "out"))
    file = str(tmp_path / "out" / "model.onnx")
    both = convkit("verify", "tests.nets.watch:net", file, *shape, "--engines", "onnxruntime", "--layers")
    assert both.code == 0, both.err
    alone = convkit("verify", "tests.nets.watch:net", *shape, "--engines", "onnxruntime")
    assert alone.code == 0, alone.err


@pytest.mark.parametrize("engine", ["eager", pytest.param("eager_cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("told", ["shape", "data"])
def test_the_reference_engine_is_told_sizes_that_the_file_leaves_free(
    convkit: Convkit, tmp_path: Path, engine: str, told: str
) -> None:
    """Its product takes one of them alone, and not the usual."""
    net = Net("N", 3, "side", "side")
    file = net.save(tmp_path / "net.onnx", net.op("Gemm", net.op("Flatten", "x"), net.weight(net.normal(192, 5))))
    np.savez(tmp_path / "data.npz", x=net.normal(4, 3, 8, 8))
    words = {"shape": "x:Nx3xside=8xside=8", "data": str(tmp_path / "data.npz")}
    result = convkit("verify", file, f"--{told}", words[told], "--engines", engine)
    assert result.code == 0, result.err


def test_a_tolerance_that_nothing_meets(convkit: Convkit, net: Path) -> None:
    assert convkit("verify", str(net), "--engines", "onnxruntime", "--tolerance", "sqnr=500").code == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--tolerance", "blur=1"], "relative, sqnr"),
        (["--tolerance", "sqnr=high"], "give a number"),
        (["--engines", "onnxruntimes"], "onnxruntime"),
        (["--metric", "top1"], "labels"),
        (["--metric", "beauty"], "beauty"),
        (["--data", "nowhere.npz"], "nowhere.npz"),
    ],
)
def test_wrong_words(convkit: Convkit, net: Path, words: list[str], told: str) -> None:
    result = convkit("verify", str(net), "--engines", "onnxruntime", *words)
    assert (result.code, result.out) == (2, "")
    assert told in result.err.splitlines()[-1]


def test_a_model_that_is_not_there(convkit: Convkit) -> None:
    assert convkit("verify", "nowhere.onnx").code == 2
