"""`convkit sensitivity`: what each layer loses in each format, as a search on a steady engine foretells it."""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from convkit.cli import handover
from convkit.cli.step import parameters
from tests.cli import quantizable, sensed
from tests.cli.quantizable import Quantize
from tests.cli.sensed import ASKED, TARGET, TIMED, USUAL, read
from tests.command_line import Convkit

WRITTEN = ["manifest.json", "report.json", handover.FILE]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sensed.write(tmp_path_factory.mktemp("sensitivity"))


@pytest.fixture
def quantize(convkit: Convkit, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Quantize:
    return sensed.searching(quantizable.searching(convkit, folder, tmp_path, monkeypatch, ()))


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    return sensed.counted(monkeypatch)


def losses(tables: Path) -> dict[str, dict[str, float]]:
    layers = read(tables)["layers"]
    return {name: {option: cost["loss"] for option, cost in known.items()} for name, known in layers.items()}


@pytest.mark.parametrize(
    ("model", "data", "sens", "budget"),
    [
        ("net.onnx", "calib.npz", "small", ("--bops", "<=0.9x")),
        ("heavy.onnx", "heavy.npz", "sens", ("--size", "<=0.22x")),
    ],
)
def test_the_losses_are_those_that_a_search_foretells(
    quantize: Quantize,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    data: str,
    sens: str,
    budget: tuple[str, ...],
) -> None:
    monkeypatch.setattr("convkit.cli.sensing.PAIRS", 0)  # none is measured truly: the tables keep what was foretold
    assert quantize(*ASKED, *TIMED, *budget, model=model, data=data).code == 0
    report = read(folder / sens / "report.json")
    assert {layer["name"]: layer["loss"] for layer in report["layers"]} == losses(tmp_path / "out" / "tables.json")
    assert (report["schema_version"], report["criterion"], report["target"]) == (1, "distance", TARGET)


def test_every_layer_in_every_format(folder: Path) -> None:
    layers = read(folder / "small" / "report.json")["layers"]
    operators = {layer["name"]: layer["operator"] for layer in layers}
    assert Counter(operators.values()) == {
        "Conv": 4,
        "Gemm": 1,
        "Add": 1,
        "GlobalAveragePool": 1,
        "Flatten": 1,
        "Pad": 1,
    }
    assert (operators["conv0"], operators["scores"], operators["sum"]) == ("Conv", "Gemm", "Add")
    for layer in layers:
        weighted = {"fp32", "int8/uint8", "int4/uint8"}
        assert set(layer["loss"]) == (weighted if layer["operator"] in {"Conv", "Gemm"} else {"fp32", "uint8"})
        assert all(loss > 0 for option, loss in layer["loss"].items() if option != "fp32")
    assert sorted(file.name for file in (folder / "small").iterdir()) == WRITTEN
    assert not (folder / ".small.search").exists()
    kept = read(folder / "small" / handover.FILE)["values"]
    assert list(kept) == ["remedies", "remedies done", "scores", "sensitivity f32"]
    assert all(kept.values())


def test_the_most_sensitive_layers_come_first(convkit: Convkit, folder: Path, tmp_path: Path) -> None:
    """--json prints the report."""
    asked = [str(folder / "net.onnx"), "--data", str(folder / "calib.npz"), "--limit", "8", *USUAL]
    words = ["sensitivity", *asked, "--formats", "int8"]
    found = convkit(*words, "-o", str(tmp_path / "table"))
    assert found.code == 0, found.err
    title, heads, _, *rows = [line for line in found.out.splitlines() if line.strip()]
    assert title == "net: loss alone (noise / signal)"
    assert sorted(heads.split()) == ["fp32", "int8/uint8", "layer", "operator", "uint8"]
    layers = read(tmp_path / "table" / "report.json")["layers"]
    most = sorted(layers, key=lambda layer: -max(layer["loss"].values()))
    cells = [[one["name"], one["operator"], *(f"{loss:.3g}" for loss in one["loss"].values())] for one in most]
    assert [row.split() for row in rows] == cells
    printed = convkit(*words, "--json", "-o", str(tmp_path / "json"))
    assert json.loads(printed.out)["layers"] == layers
    for name in ("report.json", handover.FILE):
        assert (tmp_path / "json" / name).read_bytes() == (tmp_path / "table" / name).read_bytes()


def test_forms_have_a_row_each(convkit: Convkit, folder: Path, tmp_path: Path) -> None:
    asked = [str(folder / "net.onnx"), "--data", str(folder / "calib.npz"), "--limit", "8", *USUAL]
    forms = ["--formats", "int8", "--forms", "channel_svd"]
    found = convkit("sensitivity", *asked, *forms, "-o", str(tmp_path / "sens"))
    assert found.code == 0, found.err
    losses = {layer["name"]: layer["loss"] for layer in read(tmp_path / "sens" / "report.json")["layers"]}
    row = next(line for line in found.out.splitlines() if "conv0 as channel_svd:1 " in line)
    known = losses["conv0"]
    assert row.split()[4:] == [f"{known[f'{name}@channel_svd:1']:.3g}" for name in ("fp32", "int8/uint8")]


def test_by_labels(convkit: Convkit, folder: Path, tmp_path: Path) -> None:
    x = np.load(folder / "calib.npz")["x"][:8]
    np.savez(tmp_path / "labelled.npz", x=x, labels=np.arange(8) % 3)
    asked = [str(folder / "net.onnx"), "--data", str(tmp_path / "labelled.npz"), *USUAL, "--formats", "int8"]
    found = convkit("sensitivity", *asked, "--by-labels", "-o", str(tmp_path / "sens"))
    assert found.code == 0, found.err
    assert found.out.startswith("net: loss alone (nats more than float's)\n")
    assert read(tmp_path / "sens" / "report.json")["criterion"] == "cross-entropy"


def test_no_engine_is_needed(convkit: Convkit, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without the target's engine finds what one with it does."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    asked = [str(folder / "net.onnx"), "--data", str(folder / "calib.npz"), *ASKED]
    assert convkit("quantize", *asked, "-o", str(tmp_path / "out")).code == 3
    found = convkit("sensitivity", *asked, "-o", str(tmp_path / "sens"))
    assert found.code == 0, found.err
    for name in ("report.json", handover.FILE):
        assert (tmp_path / "sens" / name).read_bytes() == (folder / "small" / name).read_bytes()


def test_what_was_finished_is_not_done_again(
    convkit: Convkit, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: Counter[str]
) -> None:
    asked = ["sensitivity", str(folder / "heavy.onnx"), "--data", str(folder / "heavy.npz"), *ASKED, "--resume"]
    words = [*asked, "-o", str(tmp_path / "sens")]
    with monkeypatch.context() as patch:
        patch.setattr("convkit.compress.record.output_folder", stopped)
        assert convkit(*words).code == 130
    assert done == {"remedy": 2, "sensitivity": 1}
    assert not (tmp_path / "sens").exists()
    assert convkit(*words).code == 0
    assert done == {"remedy": 2, "sensitivity": 1}
    assert (tmp_path / "sens" / handover.FILE).read_bytes() == (folder / "sens" / handover.FILE).read_bytes()


def stopped(_path: object) -> None:
    raise KeyboardInterrupt


def test_it_has_no_option_that_is_of_measuring() -> None:
    known = parameters("sensitivity").keys()
    assert known & {"budget", "latency", "size", "bops", "tables", "tune"} == set()
    assert known >= {"formats", "forms", "by_labels", "keep", "plan", "max_drop", "min_sqnr", "seed", "threads", "json"}
