"""`convkit quantize`: what it leaves, what it promises, and the one line that every bad input gets."""

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import numpy_helper

from convkit.cli import quantizing
from convkit.cli.quantizing import Job, Limits
from convkit.compress import data as data_sets
from convkit.compress import model as models
from convkit.compress import parts
from convkit.compress import plan as plans
from convkit.compress import target as targets
from convkit.compress.data import DataRef
from convkit.compress.model import ModelRef
from convkit.compress.search import remedies
from tests.command_line import Convkit
from tests.compress.network import Net, residual

FILES = ["manifest.json", "model.onnx", "plan.yaml", "report.json"]
QUICK = ("--target", "onnxruntime-cpu", "--budget", "1")


def heavy(path: Path) -> str:
    """Wide enough for integer kernels to pay: two 3x3 convolutions of 64 channels."""
    net = Net("N", 8, 16, 16, seed=1)
    source = "x"
    for _ in range(2):
        source = net.op("Relu", net.norm(net.conv(source, 64, 3, bias=False)))
    net.head(source, 4)
    return net.save(path, "scores")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small and a heavy network, and data for each."""
    made = tmp_path_factory.mktemp("quantize")
    residual().save(made / "net.onnx", "scores")
    heavy(made / "heavy.onnx")
    random = np.random.default_rng(0)
    np.savez(made / "calib.npz", x=random.standard_normal((24, 3, 8, 8)).astype(np.float32))
    np.savez(made / "heavy.npz", x=random.standard_normal((16, 8, 16, 16)).astype(np.float32))
    one = yaml.safe_load(parts.path("recipes/targets", "onnxruntime-cpu").read_text())
    (made / "one.yaml").write_text(yaml.safe_dump(one | {"placements": [{"name": "everything"}]}))
    return made


@pytest.fixture
def quantize(convkit: Convkit, folder: Path, tmp_path: Path) -> Callable[..., object]:
    """`quantize(data=…, model=…)`: the command on the small network, its output in tmp_path/out."""

    def call(
        *words: str, model: str | Path = "net.onnx", data: str | Path = "calib.npz", output: str | Path = ""
    ) -> object:
        places = ("-m", folder / model, "--data", folder / data, "-o", output or tmp_path / "out")
        return convkit("quantize", *map(str, places), *(words if "--target" in words else (*QUICK, *words)))

    return call


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
    results = {result["name"]: result for result in report["measurement"]["results"]}
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


def job(folder: Path, **changes: object) -> Job:
    model = models.load(ModelRef(str(folder / "net.onnx")))
    data = data_sets.load(DataRef(str(folder / "calib.npz")), model.inputs)
    target = targets.load("onnxruntime-cpu")
    return Job(str(folder / "net.onnx"), model, data, target, Limits(5, 10), **changes)


def candidates(work: Job, folder: Path) -> dict[str, tuple[str, bytes]]:
    """Text of the plan and bytes of the file, by placement."""
    folder.mkdir()
    task = quantizing._task(work, *quantizing.split(work))
    chosen = remedies.best(list(remedies.attempts(task)), task.rank)
    made = quantizing._candidates(work, task, chosen, folder)
    return {c.name: (plans.dump(c.plan), c.path.read_bytes()) for c in made}


def test_every_placement_is_the_same_again(folder: Path, tmp_path: Path) -> None:
    one, other = (candidates(job(folder), tmp_path / name) for name in "ab")
    assert one == other
    assert next(iter(one)) == "everything"
    assert len({written for _, written in one.values()}) == len(one) > 2
    assert candidates(job(folder, seed=1), tmp_path / "c") != one


def test_a_placement_keeps_what_it_says(folder: Path, tmp_path: Path) -> None:
    found = candidates(job(folder, keep=("conv3",)), tmp_path / "a")
    for name, (text, _) in found.items():
        (tmp_path / "plan.yaml").write_text(text)
        layers = plans.read(tmp_path / "plan.yaml").layers
        assert "conv3" not in layers
        assert ("conv0" not in layers) == (name == "first layer in float")
        assert ("sum" in layers) == name.startswith("everything")  # else one of its inputs is in float, or itself


def test_an_image_in_blocks_is_moved_as_codes(folder: Path, tmp_path: Path) -> None:
    net = Net(seed=2)
    net.head(net.op("Relu", net.conv("x", 8, 3, stride=2)))
    net.save(tmp_path / "strided.onnx", "scores")
    model = models.load(ModelRef(str(tmp_path / "strided.onnx")))
    found = candidates(replace(job(folder), source=str(tmp_path / "strided.onnx"), model=model), tmp_path / "a")
    nodes = {node.op_type: node for node in onnx.load_from_string(found["everything, image in blocks"][1]).graph.node}
    assert nodes["SpaceToDepth"].input[0] == "x_quantized"


def test_what_is_printed_is_the_report(quantize: Callable[..., object], tmp_path: Path) -> None:
    labels = np.random.default_rng(1).integers(0, 5, 24)
    np.savez(tmp_path / "labelled.npz", labels=labels, **_x(24))
    done = quantize("--json", data=tmp_path / "labelled.npz")
    assert done.code == 0
    assert json.loads(done.out) == read(tmp_path / "out", "report.json")
    assert {"top1", "agreement", "sqnr"} <= json.loads(done.out)["attempts"][0]["scores"].keys()
    assert "measuring" in done.err


def _x(count: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(2).standard_normal((count, 3, 8, 8)).astype(np.float32)}


def test_a_dry_run_writes_nothing(quantize: Callable[..., object], tmp_path: Path) -> None:
    done = quantize("--dry-run", "--keep", "conv3")
    assert done.code == 0
    assert done.out.startswith("would quantize 4 layers and 3 other operators of net for onnxruntime-cpu")
    assert "calibrate on 18 samples, check on 6" in done.out
    assert list(tmp_path.iterdir()) == []


def test_a_network_with_nothing_to_quantize_is_returned(quantize: Callable[..., object], tmp_path: Path) -> None:
    net = Net()
    net.save(tmp_path / "plain.onnx", net.op("Softmax", net.op("Tanh", "x"), axis=1))
    done = quantize(model=tmp_path / "plain.onnx")
    assert done.code == 0, done.err
    assert "kept float: onnxruntime-cpu runs nothing of this network in int8" in done.out
    assert (tmp_path / "out" / "model.onnx").read_bytes() == (tmp_path / "plain.onnx").read_bytes()


@pytest.mark.parametrize(("batch", "count"), [(1, 5), (4, 3), (4, 1)])
def test_few_samples_and_fixed_batches(quantize: Callable[..., object], tmp_path: Path, batch: int, count: int) -> None:
    """A batch that is not full comes to a Reshape that knows its size."""
    net = Net(batch, 3, 8, 8)
    flat = net.op("Reshape", net.op("Relu", net.conv("x", 4, 3)), net.weight(np.int64([batch, 256])))
    net.op("Gemm", flat, net.weight(net.normal(5, 256, gain=0.1)), name="scores", transB=1)
    net.save(tmp_path / "fixed.onnx", "scores")
    np.savez(tmp_path / "few.npz", **_x(count))
    done = quantize(model=tmp_path / "fixed.onnx", data=tmp_path / "few.npz")
    assert done.code == 0, done.err
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == FILES


def test_a_second_output_that_collapses_is_seen(folder: Path, tmp_path: Path) -> None:
    """The first output is fine; the second lives on a channel ten thousand times smaller than its neighbour."""
    net = Net(seed=6)
    features = net.op("Relu", net.conv("x", 4, 3))
    scaled = net.op("Mul", features, net.weight(np.float32([1e4, 1, 1, 1])[None, :, None, None]))
    after = net.normal(3, 4, 1, 1, gain=0.5)
    after[:, 0] = 0
    net.head(features, channels=4)
    small = net.conv(scaled, 3, weight=after, channels=4)
    net.save(tmp_path / "two.onnx", "scores", small)
    model = models.load(ModelRef(str(tmp_path / "two.onnx")))
    data = data_sets.load(DataRef(str(folder / "calib.npz")), model.inputs)
    work = Job("", model, data, targets.load("onnxruntime-cpu"), Limits(5, 10))
    tried = list(remedies.attempts(quantizing._task(work, *quantizing.split(work))))
    assert not tried[0].good
    assert tried[-1].good
    assert small not in tried[-1].plan.layers


def test_a_plan_edited_by_hand(quantize: Callable[..., object], folder: Path, tmp_path: Path) -> None:
    texts = candidates(job(folder), tmp_path / "made")
    lines = texts["everything"][0].splitlines()
    (tmp_path / "mine.yaml").write_text("\n".join(line for line in lines if not line.startswith('  "conv6": {w')))
    done = quantize("--plan", str(tmp_path / "mine.yaml"))
    assert done.code == 0, done.err
    assert [a["remedy"] for a in read(tmp_path / "out", "report.json")["attempts"]] == ["the plan given"]


FLIPS = [(0, 23, True), (2, 23, True), (4, 23, False), (23, 23, False), (60, 1000, True), (80, 1000, False)]


@pytest.mark.parametrize(("drop", "count", "good"), FLIPS)
def test_flips_count_where_they_are_no_chance(drop: int, count: int, good: bool) -> None:
    scores = {"sqnr": 30.0, "agreement": 100 - 100 * drop / count}
    assert quantizing._good(scores, {"agreement": 100.0}, Limits(5, 10), count) == good
    assert not quantizing._good(scores | {"sqnr": 9.9}, {"agreement": 100.0}, Limits(5, 10), count)


def arrays(**changes: np.ndarray) -> dict[str, np.ndarray]:
    return _x(4) | changes


BAD_DATA = {
    "no samples": (arrays(x=np.zeros((0, 3, 8, 8), np.float32)), "is empty: 'x' has no samples"),
    "another shape": (
        arrays(x=np.zeros((4, 3, 9, 9), np.float32)),
        "wants float32 [N, 3, 8, 8], got float32 [4, 3, 9, 9]",
    ),
    "another rank": (arrays(x=np.zeros((4, 3), np.float32)), "wants float32 [N, 3, 8, 8], got float32 [4, 3]"),
    "another type": (arrays(x=np.ones((4, 3, 8, 8))), 'got float64 [4, 3, 8, 8]; convert it with .astype("float32")'),
    "a constant": (arrays(x=np.ones((4, 3, 8, 8), np.float32)), "constant"),
    "not a number": (arrays(x=np.full((4, 3, 8, 8), np.nan, np.float32)), "NaN"),
    "no array of its name": ({"y": _x(4)["x"]}, "has no array for input 'x'; it has: y"),
}


def refused(done: object, out: Path, message: str) -> None:
    """Exit 2, one line on stderr, nothing on stdout, nothing written."""
    assert done.code == 2, done.err
    assert done.out == ""
    assert done.err.count("\n") == 1
    assert done.err.startswith("error: ")
    assert message in done.err
    assert not out.exists()


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data(quantize: Callable[..., object], tmp_path: Path, case: str) -> None:
    held, message = BAD_DATA[case]
    np.savez(tmp_path / "bad.npz", **held)
    refused(quantize(data=tmp_path / "bad.npz"), tmp_path / "out", message)


def test_files_that_are_no_images(quantize: Callable[..., object], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    refused(quantize(data=tmp_path / "photos"), tmp_path / "out", "photos")
    (tmp_path / "photos" / "a.jpg").write_bytes(b"no image at all")
    refused(quantize(data=tmp_path / "photos"), tmp_path / "out", "a.jpg")
    (tmp_path / "photos" / "a.jpg").unlink()
    (tmp_path / "photos" / "song.mp3").write_bytes(b"ID3")
    refused(quantize(data=tmp_path / "photos"), tmp_path / "out", "song.mp3")
    refused(quantize(data=tmp_path / "none.npz"), tmp_path / "out", "there is no data file")


def test_weights_that_are_not_finite(quantize: Callable[..., object], folder: Path, tmp_path: Path) -> None:
    proto = onnx.load(folder / "net.onnx")
    kernel = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    kernel[0, 0, 0, 0] = np.nan
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, proto.graph.initializer[0].name))
    onnx.save(proto, tmp_path / "nan.onnx")
    done = quantize(model=tmp_path / "nan.onnx")
    refused(done, tmp_path / "out", f"weight {proto.graph.initializer[0].name!r} holds 1 NaN or infinite")


def test_activations_that_overflow(quantize: Callable[..., object], tmp_path: Path) -> None:
    net = Net()
    grown = net.op("Mul", net.conv("x", 4), net.weight(np.float32(1e38)))
    net.save(tmp_path / "grown.onnx", net.conv(net.op("Mul", grown, net.weight(np.float32(1e30))), 2, channels=4))
    done = quantize(model=tmp_path / "grown.onnx")
    assert done.code == 2
    assert "is NaN or infinite on the calibration data" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"\x08", b"no model", b"\x80\x04\x95pickle"])
def test_a_file_that_is_no_model(quantize: Callable[..., object], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    refused(quantize(model=tmp_path / "bad.onnx"), tmp_path / "out", "bad.onnx")


WRONG_WORDS = {
    "no such target": (("--target", "onnxruntime"), "no target is called 'onnxruntime'; did you mean"),
    "no such target file": (("--target", "none.yaml"), "cannot read target none.yaml"),
    "no such layer": (("--keep", "conv33"), "no layer or operator to keep in float is called 'conv33'; did you mean"),
    "no such plan": (("--plan", "none.yaml"), "cannot read plan none.yaml"),
    "a negative drop": (("--max-drop", "-1"), "--max-drop"),
    "no budget": (("--budget", "0"), "--budget"),
    "no threads": (("--threads", "0"), "--threads"),
    "an unknown option": (("--fast",), "--fast"),
}


@pytest.mark.parametrize("case", WRONG_WORDS)
def test_wrong_words(quantize: Callable[..., object], tmp_path: Path, case: str) -> None:
    words, message = WRONG_WORDS[case]
    refused(quantize(*words), tmp_path / "out", message)


def test_data_is_asked_for(convkit: Convkit, folder: Path, tmp_path: Path) -> None:
    done = convkit("quantize", "-m", str(folder / "net.onnx"), "-o", str(tmp_path / "out"))
    refused(done, tmp_path / "out", "--data")


def test_a_plan_of_another_model(quantize: Callable[..., object], tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(plans.dump(plans.Plan("00" * 32, "onnxruntime-cpu")))
    done = quantize("--plan", str(tmp_path / "plan.yaml"))
    assert done.code == 2
    assert "the plan is for model 000000000000" in done.err
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written(quantize: Callable[..., object], folder: Path, tmp_path: Path) -> None:
    """Said before the work starts."""
    (tmp_path / "file").write_text("mine")
    refused(quantize(output=tmp_path / "file" / "out"), tmp_path / "out", "a part of its path is a file")
    refused(quantize(output=tmp_path / "file"), tmp_path / "out", "is a file; give a folder")
    refused(quantize(output="/proc/convkit/out"), tmp_path / "out", "cannot write /proc/convkit/out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    refused(quantize(output=tmp_path / "full"), tmp_path / "out", "holds 'thesis.txt', which convkit did not write")
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("limit", [1000, 6000])
def test_a_disk_that_is_full(folder: Path, tmp_path: Path, limit: int) -> None:
    """No file may grow beyond `limit` bytes: the candidates' meet that first, then those of the output."""
    words = ["quantize", "-m", folder / "net.onnx", "--data", folder / "calib.npz", *QUICK, "-o", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-m", "convkit.cli.main", *map(str, words)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        env={"PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "the file is larger than the system allows" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_output_is_replaced_whole(quantize: Callable[..., object], twice: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(twice[0], out)
    assert quantize(output=out).code == 0
    assert sorted(file.name for file in out.iterdir()) == FILES
    assert read(out, "report.json")["target"] == "onnxruntime-cpu"
