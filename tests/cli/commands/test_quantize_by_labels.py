"""`convkit quantize --by-labels`: of two layers alike, the one that labels ask for keeps its bits, on an engine whose
times are always alike. The other one is heard louder in the output."""

import json
from pathlib import Path

import numpy as np
import pytest

from convkit.compress import format as formats
from convkit.compress import model as models
from convkit.compress import plan as plans
from convkit.compress.model import ModelRef
from convkit.compress.option import FLOAT
from convkit.compress.search import criterion, tables
from convkit.compress.search.problem import Cost, Problem
from convkit.compress.search.tables import Tables
from tests.cli import quantizable
from tests.cli.quantizable import Quantize
from tests.command_line import Convkit
from tests.compress.network import Net

OPTIONS = ("--target", "onnxruntime-cpu", "--budget", "1", "--threads", "1", "--no-tune", "--min-sqnr", "5")
WISH = ("--formats", "int8,int4", "--bops", "<=0.05x", "--max-drop", "30")
ASKED, LOUD = "conv0", "conv2"


def branches(net: Net) -> tuple[str, str]:
    """Two layers alike of the same input, each with a ReLU."""
    asked = net.op("Relu", net.conv("x", 24, 3))
    return asked, net.op("Relu", net.conv("x", 24, 3))


def classifier(path: Path) -> None:
    """What is loud adds the same to the scores of all classes, which no label asks for."""
    net = Net("N", 4, 8, 8)
    asked, loud = branches(net)
    flat = [net.op("Flatten", net.op("GlobalAveragePool", branch)) for branch in (asked, loud)]
    same = np.repeat(np.abs(net.normal(1, 24, gain=2.0)), 5, axis=0)
    scores = net.op("Gemm", flat[0], net.weight(net.normal(5, 24)), transB=1)
    net.op("Add", scores, net.op("Gemm", flat[1], net.weight(same), transB=1), name="scores")
    net.save(path, "scores")


def restorer(path: Path) -> None:
    """What is loud makes all outputs but the first."""
    net = Net("N", 4, 8, 8)
    asked, loud = branches(net)
    net.save(path, net.conv(asked, 4), *(net.conv(loud, 4) for _ in range(2)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The networks, samples, and labels that these get right, or almost. Classes are the second likeliest: rounding
    makes scores larger, which is a gain where the likeliest is right, and a loss here.
    """
    made = tmp_path_factory.mktemp("labels")
    x = np.random.default_rng(0).standard_normal((24, 4, 8, 8)).astype(np.float32)
    classifier(made / "classes.onnx")
    restorer(made / "image.onnx")
    scores, image = (np.asarray(_first(made / name, x)) for name in ("classes.onnx", "image.onnx"))
    labels = {
        "indices": scores.argsort(axis=1)[:, -2],
        "several": scores >= np.sort(scores, axis=1)[:, -2:-1],
        "targets": image + np.random.default_rng(1).standard_normal(image.shape).astype(np.float32) * 0.1,
    }
    for name, found in labels.items():
        np.savez(made / f"{name}.npz", x=x, labels=found)
    np.savez(made / "none.npz", x=x)
    np.savez(made / "small.npz", x=x, labels=image[:, :, :4])
    deep = scores.argmax(axis=1)
    deep[-1] = 7  # the last of all: what labels say is looked at before anything is done
    np.savez(made / "deep.npz", x=x, labels=deep)
    return made


def _first(path: Path, x: np.ndarray) -> np.ndarray:
    import torch

    found: np.ndarray = next(iter(models.load(ModelRef(str(path)))({"x": torch.from_numpy(x)}).values())).numpy()
    return found


@pytest.fixture
def quantize(convkit: Convkit, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Quantize:
    return quantizable.searching(convkit, folder, tmp_path, monkeypatch, OPTIONS)


CASES = {
    "indices": ("classes.onnx", criterion.CROSS_ENTROPY, "nats"),
    "several": ("classes.onnx", criterion.CROSS_ENTROPY, "nats"),
    "targets": ("image.onnx", criterion.SQUARED_ERROR, "of signal"),
}


def bits(out: Path, layer: str) -> int:
    weight = plans.read(out / "plan.yaml").layers[layer].weight
    assert weight is not None
    return formats.load(weight).bits


@pytest.mark.parametrize("labels", CASES)
def test_the_layer_that_labels_ask_for_keeps_its_bits(
    quantize: Quantize, convkit: Convkit, folder: Path, tmp_path: Path, labels: str
) -> None:
    model, kind, unit = CASES[labels]
    distant, near = (tmp_path / name for name in ("distant", "near"))
    assert quantize(*WISH, model=model, data=f"{labels}.npz", output=distant).code == 0
    assert bits(distant, ASKED) < bits(distant, LOUD)
    done = quantize(*WISH, "--by-labels", model=model, data=f"{labels}.npz", output=near)
    assert done.code == 0, done.err
    assert bits(near, ASKED) > bits(near, LOUD)
    assert f" {unit}; predicted " in done.err
    assert f"less {kind.heading} upwards" in done.out
    report = json.loads((near / "report.json").read_text())
    assert report["search"]["criterion"] == kind.name
    assert kind.metric in report["networks"][0]["metrics"]
    assert kind.axis in (near / "front.svg").read_text()
    assert kind.alone in (near / "layers.svg").read_text()
    known = tables.read(near / "tables.json")
    assert (known.criterion, tables.read(distant / "tables.json").criterion) == (kind, criterion.DISTANCE)
    told = convkit("choose", str(near), *WISH[2:4])
    assert (told.code, kind.heading in told.out, unit in told.out) == (0, True, True), told.err
    again = quantize("--tables", str(near / "tables.json"), *WISH[2:], model=model, data=f"{labels}.npz")
    assert again.code == 0, again.err
    assert bits(tmp_path / "out", ASKED) > bits(tmp_path / "out", LOUD)
    assert tables.read(tmp_path / "out" / "tables.json").criterion == kind


WRONG = {
    "no labels": ((*WISH, "--by-labels"), "classes.onnx", "none.npz", "needs labels, the data has none; add an array"),
    "no search": (
        ("--by-labels",),
        "classes.onnx",
        "indices.npz",
        "--by-labels says how to search, not for what; give",
    ),
    "a smaller image": (
        (*WISH, "--by-labels"),
        "image.onnx",
        "small.npz",
        "the output is [4, 8, 8] a sample, the labels are",
    ),
    "classes of an image": ((*WISH, "--by-labels"), "image.onnx", "indices.npz", "do not fit class scores"),
    "an image of classes": (
        (*WISH, "--by-labels"),
        "classes.onnx",
        "targets.npz",
        "the output is [5] a sample, the labels",
    ),
    "classes that it lacks": (
        (*WISH, "--by-labels"),
        "classes.onnx",
        "deep.npz",
        "a label is class 7, the network has 5",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_labels_that_there_are_not_or_that_do_not_fit(quantize: Quantize, tmp_path: Path, case: str) -> None:
    words, model, data, message = WRONG[case]
    done = quantize(*words, model=model, data=data)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert message in done.err
    assert not (tmp_path / "out").exists()


def test_tables_keep_to_their_kind_of_loss(quantize: Quantize, folder: Path, tmp_path: Path) -> None:
    digest = models.load(ModelRef(str(folder / "classes.onnx"))).digest
    for kind in (criterion.CROSS_ENTROPY, criterion.SQUARED_ERROR):
        whole = Cost(seconds=1.0, bytes=1.0)
        problem = Problem({"conv": {FLOAT: whole}})
        known = Tables(digest, problem, {}, target="onnxruntime-cpu", original=whole, criterion=kind)
        tables.write(tmp_path / f"{kind.metric}.json", known)
    cases = {
        "--tables says whether labels count": ("--by-labels", "cross_entropy.json", "indices.npz"),
        "needs labels, the data has none": ("--size", "cross_entropy.json", "none.npz"),
        "holds tables of squared error, the labels are for cross-entropy": ("--size", "nmse.json", "indices.npz"),
    }
    for message, (word, file, data) in cases.items():
        more = (word, "<=0.3x") if word == "--size" else (word,)
        done = quantize("--tables", str(tmp_path / file), *more, model="classes.onnx", data=data)
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert message in done.err
