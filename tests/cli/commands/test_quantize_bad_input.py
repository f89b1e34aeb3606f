"""The one line that every bad input of `convkit quantize` gets."""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import numpy_helper

from convkit.compress import model as models
from convkit.compress import parts
from convkit.compress import plan as plans
from convkit.compress.model import ModelRef
from tests.cli import quantizable
from tests.cli.quantizable import QUICK, Quantize, samples
from tests.command_line import Convkit, Result
from tests.compress.network import Net


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantizable.write(tmp_path_factory.mktemp("quantize"))


@pytest.fixture
def quantize(convkit: Convkit, folder: Path, tmp_path: Path) -> Quantize:
    return quantizable.command(convkit, folder, tmp_path / "out")


def arrays(**changes: np.ndarray) -> dict[str, np.ndarray]:
    return samples(4) | changes


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
    "no array of its name": ({"y": samples(4)["x"]}, "has no array for input 'x'; it has: y"),
}


def refused(done: Result, out: Path, message: str) -> None:
    """Exit 2, one line on stderr, nothing on stdout, nothing written."""
    assert done.code == 2, done.err
    assert done.out == ""
    assert done.err.count("\n") == 1
    assert done.err.startswith("error: ")
    assert message in done.err
    assert not out.exists()


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data(quantize: Quantize, tmp_path: Path, case: str) -> None:
    held, message = BAD_DATA[case]
    np.savez(tmp_path / "bad.npz", **held)
    refused(quantize(data=tmp_path / "bad.npz"), tmp_path / "out", message)


def test_files_that_are_no_images(quantize: Quantize, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    refused(quantize(data=tmp_path / "photos"), tmp_path / "out", "photos")
    (tmp_path / "photos" / "a.jpg").write_bytes(b"no image at all")
    refused(quantize(data=tmp_path / "photos"), tmp_path / "out", "a.jpg")
    (tmp_path / "photos" / "a.jpg").unlink()
    (tmp_path / "photos" / "song.mp3").write_bytes(b"ID3")
    refused(quantize(data=tmp_path / "photos"), tmp_path / "out", "song.mp3")
    refused(quantize(data=tmp_path / "none.npz"), tmp_path / "out", "there is no data file")


def test_weights_that_are_not_finite(quantize: Quantize, folder: Path, tmp_path: Path) -> None:
    proto = onnx.load(folder / "net.onnx")
    kernel = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    kernel[0, 0, 0, 0] = np.nan
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, proto.graph.initializer[0].name))
    onnx.save(proto, tmp_path / "nan.onnx")
    done = quantize(model=tmp_path / "nan.onnx")
    refused(done, tmp_path / "out", f"weight {proto.graph.initializer[0].name!r} holds 1 NaN or infinite")


def test_activations_that_overflow(quantize: Quantize, tmp_path: Path) -> None:
    net = Net()
    grown = net.op("Mul", net.conv("x", 4), net.weight(np.float32(1e38)))
    net.save(tmp_path / "grown.onnx", net.conv(net.op("Mul", grown, net.weight(np.float32(1e30))), 2, channels=4))
    done = quantize(model=tmp_path / "grown.onnx")
    assert done.code == 2
    assert "is NaN or infinite on the calibration data" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"\x08", b"no model", b"\x80\x04\x95pickle"])
def test_a_file_that_is_no_model(quantize: Quantize, tmp_path: Path, content: bytes) -> None:
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
    "too many threads": (("--threads", "100000"), "'--threads': 100000 is not in the range"),
    "a negative seed": (("--seed", "-5"), "'--seed': -5 is not in the range"),
    "a budget that is no number": (("--budget", "nan"), "'--budget': nan is not a finite number"),
    "a budget without end": (("--budget", "inf"), "'--budget': inf is not a finite number"),
    "a drop that is no number": (("--max-drop", "nan"), "'--max-drop': nan is not a finite number"),
    "a noise that is no number": (("--min-sqnr", "nan"), "'--min-sqnr': nan is not a finite number"),
    "an operator of other networks": (("--keep", "nosuch"), "is called 'nosuch'; `convkit inspect` lists"),
    "an unknown option": (("--fast",), "--fast"),
}


@pytest.mark.parametrize("case", WRONG_WORDS)
def test_wrong_words(quantize: Quantize, tmp_path: Path, case: str) -> None:
    words, message = WRONG_WORDS[case]
    refused(quantize(*words), tmp_path / "out", message)


WRONG_WISHES = {
    "an unknown format": (("--formats", "int8,imt4"), "'imt4'; did you mean"),
    "no format of weights": (("--formats", "uint8"), "uint8 is no format to search weights in"),
    "a time in bytes": (("--latency", "<=4MB"), "--latency '<=4MB'"),
    "a size in seconds": (("--size", "<=4ms"), "--size '<=4ms'"),
    "no number": (("--bops", "fast"), "--bops 'fast' is no budget"),
    "no name between commas": (("--formats", "int8,,int4"), "--formats 'int8,,int4' has an empty name in it"),
    "a comma alone": (("--formats", ","), "--formats ',' has an empty name in it"),
    "no format behind a slash": (("--precision", "int4/"), "precision 'int4/' lacks a format"),
    "no tables": (("--tables", "none.json"), "cannot read tables none.json"),
}


@pytest.mark.parametrize("case", WRONG_WISHES)
def test_wrong_wishes(quantize: Quantize, tmp_path: Path, case: str) -> None:
    words, message = WRONG_WISHES[case]
    refused(quantize(*words), tmp_path / "out", message)


@pytest.mark.parametrize(
    "name", ["--target", "--precision", "--method", "--formats", "--keep", "--plan", "--tables", "--labels", "--output"]
)
def test_an_empty_word(quantize: Quantize, tmp_path: Path, name: str) -> None:
    for empty in ("", " "):
        done = quantize(name, empty)
        refused(done, tmp_path / "out", f"{name}': it is empty; give a value")


def test_too_few_samples_for_a_search(quantize: Quantize, tmp_path: Path) -> None:
    np.savez(tmp_path / "few.npz", **samples(3))
    done = quantize("--formats", "int8", data=tmp_path / "few.npz")
    refused(done, tmp_path / "out", "the data has 3 samples, too few for a search; give at least 4")


def test_a_format_that_the_target_lacks(quantize: Quantize, tmp_path: Path) -> None:
    text = yaml.safe_load(parts.path("recipes/targets", "onnxruntime-cpu").read_text())
    text["formats"]["int4"] = {"missing": True}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(text))
    done = quantize("--formats", "int8,int4", "--target", str(tmp_path / "mine.yaml"))
    refused(done, tmp_path / "out", "mine has no int4; it has ")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(7, np.int64), "has unequal numbers of samples: x 8, labels 7"),
        (np.full(8, 99), "a label is class 99, the network has 5 classes"),
        (np.full(8, -1), "label -1 of sample 0"),
        (np.array(["cat"] * 8), "labels"),
    ],
)
def test_labels_that_do_not_match(quantize: Quantize, tmp_path: Path, labels: np.ndarray, message: str) -> None:
    np.savez(tmp_path / "labelled.npz", labels=labels, **samples(8))
    done = quantize("--formats", "int8", data=tmp_path / "labelled.npz")
    assert done.code == 2, done.err
    assert message in done.err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_plan_with_layers_that_do_not_exist(quantize: Quantize, folder: Path, tmp_path: Path) -> None:
    model = models.load(ModelRef(str(folder / "net.onnx")))
    wrong = plans.Plan(model.digest, "onnxruntime-cpu", (), {"conv33": plans.LayerPlan("uint8", "int8")})
    (tmp_path / "plan.yaml").write_text(plans.dump(wrong))
    done = quantize("--plan", str(tmp_path / "plan.yaml"))
    assert done.code == 2, done.err
    assert "conv33" in done.err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_data_is_asked_for(convkit: Convkit, folder: Path, tmp_path: Path) -> None:
    done = convkit("quantize", "-m", str(folder / "net.onnx"), "-o", str(tmp_path / "out"))
    refused(done, tmp_path / "out", "--data")


def test_a_plan_of_another_model(quantize: Quantize, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(plans.dump(plans.Plan("00" * 32, "onnxruntime-cpu")))
    done = quantize("--plan", str(tmp_path / "plan.yaml"))
    assert done.code == 2
    assert "the plan is for model 000000000000" in done.err
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written(quantize: Quantize, folder: Path, tmp_path: Path) -> None:
    """Said before the work starts."""
    (tmp_path / "file").write_text("mine")
    refused(quantize(output=tmp_path / "file" / "out"), tmp_path / "out", "a part of its path is a file")
    refused(quantize(output=tmp_path / "file"), tmp_path / "out", "is a file; give a folder")
    refused(quantize(output="/proc/convkit/out"), tmp_path / "out", "cannot write /proc/convkit/out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    refused(quantize(output=tmp_path / "full"), tmp_path / "out", "holds 'thesis.txt', which convkit did not write")
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"


def test_an_output_around_the_current_folder(
    quantize: Quantize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    for place in ("/", "..", "../..", str(tmp_path)):
        done = quantize(output=place)
        refused(done, tmp_path / "out", f"output {place} holds the folder that you are in; give a new folder")


@pytest.mark.parametrize("limit", [1000, 6000])
def test_a_disk_that_is_full(folder: Path, tmp_path: Path, limit: int) -> None:
    """No file may grow beyond `limit` bytes: what is kept to resume from meets that first, or a candidate."""
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
    assert [path.name for path in tmp_path.iterdir()] == [".out.search"], "only what --resume goes on from"
