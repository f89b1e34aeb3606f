"""`convkit quantize --sensitivity`: a search that goes on from what `convkit sensitivity` found, on a steady engine."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convkit.cli import handover, recipe, spreading
from convkit.compress import model as models
from convkit.compress import plan as plans
from convkit.compress import record
from convkit.compress.model import ModelRef
from tests.cli import quantizable, sensed, steady
from tests.cli.commands.test_quantize_bad_input import refused
from tests.cli.quantizable import Quantize
from tests.cli.sensed import SEARCH, TARGET, TIMED, USUAL, read
from tests.command_line import Convkit
from tests.compress.network import Net

RECIPE = """
model: heavy.onnx
data: {calibration: heavy.npz}
target: onnxruntime-cpu
threads: 1
min_sqnr: 5
formats: int8,int4
steps:
  - {command: sensitivity, name: sens, data: calibration}
  - {command: quantize, data: calibration, sensitivity: "${sens}", budget: 1, tune: false, size: "<=0.22x"}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sensed.write(tmp_path_factory.mktemp("sensitivity"))


@pytest.fixture
def quantize(convkit: Convkit, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Quantize:
    return sensed.searching(quantizable.searching(convkit, folder, tmp_path, monkeypatch, ()))


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    return sensed.counted(monkeypatch)


def test_a_search_goes_on_from_there_to_the_same_end(
    quantize: Quantize, folder: Path, tmp_path: Path, done: Counter[str]
) -> None:
    assert quantize(*SEARCH, output=tmp_path / "plain").code == 0
    assert done == {"remedy": 2, "sensitivity": 2, "truth": 1}
    done.clear()
    # What a budget is, and how time is measured, is no part of what layers lose.
    found = quantize(*SEARCH, "--sensitivity", str(folder / "sens"))
    assert found.code == 0, found.err
    assert done == {"sensitivity": 1, "truth": 1}, "of the pairs that are measured truly"
    for name in ("tables.json", "plan.yaml", "model.onnx"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes(), name
    attempts = [read(tmp_path / name / "report.json")["attempts"] for name in ("plain", "out")]
    assert attempts[0] == attempts[1]
    text = quantize(*SEARCH, "--sensitivity", str(folder / "sens" / handover.FILE), "--dry-run").out
    assert "latency table" in text
    assert "remedies" not in text
    assert "sensitivity" not in text


def test_a_recipe_hands_it_over(
    convkit: Convkit, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: Counter[str]
) -> None:
    """On a cluster any machine may do the first step, only one with the target the second."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    steady.install(monkeypatch)
    written = tmp_path / "recipe.yaml"
    written.write_text(RECIPE.replace("heavy.", f"{folder}/heavy."))
    sens, quantize = recipe.load(str(written)).steps
    assert (spreading.target(sens), spreading.target(quantize)) == (None, TARGET)
    assert quantize.needs() == {"sens"}
    found = convkit("run", str(written), "-o", str(tmp_path / "run"))
    assert found.code == 0, found.err
    assert done == {"remedy": 2, "sensitivity": 2, "truth": 1}
    assert (tmp_path / "run" / "quantize" / "tables.json").exists()
    again = convkit("run", str(written), "-o", str(tmp_path / "run"))
    assert again.err.count("kept from before") == 2


def changed(folder: Path, place: Path, change: Callable[[Any], object]) -> Path:
    """The file, after `change`."""
    text = read(folder / "sens" / handover.FILE)
    change(text)
    place.write_text(json.dumps(text))
    return place


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--seed", "1"), "is of another --seed; make it anew with `convkit sensitivity`"),
        (("--max-drop", "1"), "is of another --max-drop or --min-sqnr;"),
        (("--keep", "conv0"), "is of another --keep;"),
        (("--forms", "tucker2"), "is of other forms;"),
        (("--formats", "int8"), "is of other formats;"),
        (("--formats", "int4,int8"), "is of other formats;"),
        (("--target", "openvino-cpu"), "is of another target, or processor with other instructions;"),
        (("--formats", "int8", "--seed", "1"), "is of another --seed and of other formats;"),
        (("--tables", "sens"), "--tables has the sensitivity of layers already; leave out --sensitivity"),
    ],
)
def test_what_is_of_another_search_is_refused(
    quantize: Quantize, folder: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    refused(quantize(*SEARCH, *words, "--sensitivity", str(folder / "sens")), tmp_path / "out", said)


def test_other_data_or_labels_or_another_plan_or_network_are_refused(
    quantize: Quantize, folder: Path, tmp_path: Path
) -> None:
    known, out = ("--sensitivity", str(folder / "sens")), tmp_path / "out"
    x = np.load(folder / "heavy.npz")["x"]
    np.savez(tmp_path / "less.npz", x=x[:-1])
    refused(quantize(*SEARCH, *known, data=tmp_path / "less.npz"), out, "is of other data;")
    np.savez(tmp_path / "labelled.npz", x=x, labels=np.zeros(len(x), np.int64))
    words = "is of other data and of another criterion: see --by-labels;"
    refused(quantize(*SEARCH, "--by-labels", *known, data=tmp_path / "labelled.npz"), out, words)
    model = models.load(ModelRef(str(folder / "heavy.onnx"))).digest
    (tmp_path / "plan.yaml").write_text(plans.dump(plans.Plan(model, TARGET, pins={"conv0": "float"})))
    refused(quantize(*SEARCH, "--plan", str(tmp_path / "plan.yaml"), *known), out, "is of another --plan;")
    net = Net("N", 8, 16, 16, seed=2)
    net.head(net.op("Relu", net.conv("x", 64, 3)), 4)
    net.save(tmp_path / "other.onnx", "scores")
    refused(quantize(*SEARCH, *known, model=tmp_path / "other.onnx"), out, "is of another network;")


def test_another_version_of_convkit_finds_other_losses(
    quantize: Quantize, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convkit.compress.code.digest", lambda: "another")
    found = quantize(*SEARCH, "--sensitivity", str(folder / "sens"))
    refused(found, tmp_path / "out", "is of another version of convkit;")


def test_without_a_search_there_is_nothing_to_begin(quantize: Quantize, folder: Path, tmp_path: Path) -> None:
    found = quantize(*USUAL, *TIMED, "--sensitivity", str(folder / "sens"))
    refused(found, tmp_path / "out", "--sensitivity is of a search; give --formats or a budget")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "holds no sensitivity: "),
        (b"\x87\xff", "holds no sensitivity: "),
        (b"[" * 100_000, "holds no sensitivity: "),
        (b"[1]", "its schema_version is not 1"),
        (b'{"schema_version": 2}', "its schema_version is not 1"),
        (b'{"schema_version": 1, "key": "a", "parts": {}, "digest": "b"}', "it lacks 'values'"),
        (b'{"schema_version": 1, "key": "a", "parts": {}, "digest": "b", "values": []}', "'values' of it is []"),
    ],
)
def test_a_file_that_holds_none_is_one_line(quantize: Quantize, tmp_path: Path, text: bytes, said: str) -> None:
    (tmp_path / "bad.json").write_bytes(text)
    refused(quantize(*SEARCH, "--sensitivity", str(tmp_path / "bad.json")), tmp_path / "out", said)


def test_a_file_that_was_changed_or_is_not_there_is_one_line(quantize: Quantize, folder: Path, tmp_path: Path) -> None:
    def edit(text: Any) -> None:
        text["values"]["sensitivity f32"]["conv0"]["fp32"] = 1.0

    def claim(text: Any) -> None:
        text["parts"]["seed"] = record.digest_json(1)

    for change in (edit, claim):
        file = changed(folder, tmp_path / "mine.json", change)
        found = quantize(*SEARCH, "--seed", "1", "--sensitivity", str(file))
        refused(found, tmp_path / "out", "holds no sensitivity: it was changed since it was written; make it anew")
    found = quantize(*SEARCH, "--sensitivity", str(tmp_path / "nowhere"))
    refused(found, tmp_path / "out", f"cannot read sensitivity {tmp_path}/nowhere: No such file or directory;")
