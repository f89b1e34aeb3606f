"""`convkit quantize`: what it leaves, and what it promises."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from convkit.compress import model as models
from convkit.compress import parts
from convkit.compress import plan as plans
from convkit.compress.model import ModelRef
from tests import here
from tests.cli import quantizable
from tests.cli.quantizable import FILES, Quantize, candidates, job, samples
from tests.command_line import Convkit
from tests.compress.network import Net


def heavy(path: Path) -> str:
    """Wide enough for integer kernels to pay: two 3x3 convolutions of 64 channels."""
    net = Net("N", 8, 16, 16, seed=1)
    source = "x"
    for _ in range(2):
        source = net.op("Relu", net.norm(net.conv(source, 64, 3, bias=False)))
    net.head(source, 4)
    return net.save(path, "scores")


def heavy_and_samples(network: Path, data: Path) -> None:
    """The heavy network, and 16 normal samples for it."""
    heavy(network)
    np.savez(data, x=np.random.default_rng(0).standard_normal((16, 8, 16, 16)).astype(np.float32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small and a heavy network, and data for each."""
    made = quantizable.write(tmp_path_factory.mktemp("quantize"))
    heavy_and_samples(made / "heavy.onnx", made / "heavy.npz")
    one = yaml.safe_load(parts.path("recipes/targets", "onnxruntime-cpu").read_text())
    (made / "one.yaml").write_text(yaml.safe_dump(one | {"placements": [{"name": "everything"}]}))
    return made


@pytest.fixture
def quantize(convkit: Convkit, folder: Path, tmp_path: Path) -> Quantize:
    return quantizable.command(convkit, folder, tmp_path / "out")


def read(out: Path, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((out / name).read_text())
    return found


@pytest.fixture(scope="module")
def twice(folder: Path) -> list[Path]:
    """The heavy network quantized for one placement, by two processes."""
    outs = [folder / f"out{i}" for i in range(2)]
    for out in outs:
        words = ("-m", "heavy.onnx", "--data", "heavy.npz", "--target", "one.yaml", "--budget", "1", "-o", out.name)
        command = [sys.executable, "-m", "convkit.cli.main", "quantize", *words]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return outs


def test_the_contract(twice: list[Path], folder: Path) -> None:
    out = twice[0]
    assert sorted(file.name for file in out.iterdir()) == FILES
    report, manifest, plan = read(out, "report.json"), read(out, "manifest.json"), plans.read(out / "plan.yaml")
    onnx.checker.check_model(out / "model.onnx", full_check=True)
    model = models.load(ModelRef(str(folder / "heavy.onnx")))
    assert plan.model == manifest["digests"]["model"] == model.digest
    assert manifest["digests"]["plan"] == plan.digest
    assert manifest["target"] == report["target"] == plan.target == "one"
    assert manifest["command"][:2] == ["convkit", "quantize"]
    assert not {"-o", "out0"} & {*manifest["command"]}
    assert {*manifest["files"]} == {*FILES} - {"manifest.json"}
    assert report["schema_version"] == 1
    assert report["held_back_samples"] == 4


def test_the_verdict_is_what_was_written(twice: list[Path], folder: Path) -> None:
    """Either the plan is a network's that was measured good and faster, or the bytes are the original's."""
    out = twice[0]
    report, plan = read(out, "report.json"), plans.read(out / "plan.yaml")
    results = {result["name"]: result for result in report["networks"]}
    assert report["kept"] in results
    written, original = (out / "model.onnx").read_bytes(), (folder / "heavy.onnx").read_bytes()
    operators = [node.op_type for node in onnx.load(out / "model.onnx").graph.node]
    if report["verdict"] == "kept float":
        assert (written, plan.layers, report["quantized_layers"]) == (original, {}, 0)
        assert report["kept"] == "original"
    else:
        assert report["verdict"] == "quantized"
        assert results[report["kept"]]["ratios"]["p50"]["high"] < 1
        assert report["quantized_layers"] == sum(layer.weight is not None for layer in plan.layers.values()) == 3
        assert "QuantizeLinear" in operators
    assert report["attempts"][0]["scores"]["sqnr"] > 20


def test_the_same_inputs_give_the_same_bytes(twice: list[Path]) -> None:
    one, other = twice
    assert [a["scores"] for a in read(one, "report.json")["attempts"]] == [
        a["scores"] for a in read(other, "report.json")["attempts"]
    ]
    if read(one, "report.json")["kept"] == read(other, "report.json")["kept"]:
        for name in ("model.onnx", "plan.yaml"):
            assert (one / name).read_bytes() == (other / name).read_bytes()


def test_what_is_printed_is_the_report(quantize: Quantize, tmp_path: Path) -> None:
    labels = np.random.default_rng(1).integers(0, 5, 24)
    np.savez(tmp_path / "labelled.npz", labels=labels, **samples(24))
    done = quantize("--json", data=tmp_path / "labelled.npz")
    assert done.code == 0
    assert json.loads(done.out) == read(tmp_path / "out", "report.json")
    assert {"top1", "agreement", "sqnr"} <= json.loads(done.out)["attempts"][0]["scores"].keys()
    assert "measuring" in done.err


def test_a_dry_run_writes_nothing(quantize: Quantize, tmp_path: Path) -> None:
    done = quantize("--dry-run", "--keep", "conv3")
    assert done.code == 0
    assert done.out.startswith("would quantize 4 layers and 3 other operators of net for onnxruntime-cpu")
    assert "calibrate on 18 samples, check on 6" in done.out
    assert quantize("--dry-run", output=tmp_path / "a" / "b" / "out").code == 0
    assert list(tmp_path.iterdir()) == []


def test_a_network_with_nothing_to_quantize_is_returned(quantize: Quantize, tmp_path: Path) -> None:
    net = Net()
    net.save(tmp_path / "plain.onnx", net.op("Softmax", net.op("Tanh", "x"), axis=1))
    done = quantize(model=tmp_path / "plain.onnx")
    assert done.code == 0, done.err
    weight = here.target("onnxruntime-cpu").weight
    assert f"kept float: onnxruntime-cpu runs nothing of this network in {weight}" in done.out
    assert (tmp_path / "out" / "model.onnx").read_bytes() == (tmp_path / "plain.onnx").read_bytes()


@pytest.mark.parametrize(("batch", "count"), [(1, 5), (4, 3), (4, 1)])
def test_few_samples_and_fixed_batches(quantize: Quantize, tmp_path: Path, batch: int, count: int) -> None:
    """A batch that is not full comes to a Reshape that knows its size."""
    net = Net(batch, 3, 8, 8)
    flat = net.op("Reshape", net.op("Relu", net.conv("x", 4, 3)), net.weight(np.int64([batch, 256])))
    net.op("Gemm", flat, net.weight(net.normal(5, 256, gain=0.1)), name="scores", transB=1)
    net.save(tmp_path / "fixed.onnx", "scores")
    np.savez(tmp_path / "few.npz", **samples(count))
    done = quantize(model=tmp_path / "fixed.onnx", data=tmp_path / "few.npz")
    assert done.code == 0, done.err
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == FILES
    told = "one calibration sample only" if count == 1 else "1 held-back sample"
    assert told in str(read(tmp_path / "out", "report.json")["remark"])
    assert "sqnr (tells little)" in done.out


def test_a_plan_edited_by_hand(quantize: Quantize, folder: Path, tmp_path: Path) -> None:
    texts = candidates(job(folder), tmp_path / "made")
    lines = texts["everything"][0].splitlines()
    (tmp_path / "mine.yaml").write_text("\n".join(line for line in lines if not line.startswith('  "conv6": {w')))
    done = quantize("--plan", str(tmp_path / "mine.yaml"))
    assert done.code == 0, done.err
    assert [a["remedy"] for a in read(tmp_path / "out", "report.json")["attempts"]] == ["the plan given"]


def test_an_output_is_replaced_whole(quantize: Quantize, twice: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(twice[0], out)
    assert quantize(output=out).code == 0
    assert sorted(file.name for file in out.iterdir()) == FILES
    assert read(out, "report.json")["target"] == "onnxruntime-cpu"
